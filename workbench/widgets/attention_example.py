"""What the attention explorer shows of one picture and its caption."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class AttentionExample(NamedTuple):
    """A picture with R regions, its caption with S words, and what the two attentions make of them.

    `image` is uint8 [3, H, W]; `boxes` [R, 4] in its pixels (x0, y0, x1, y1), empty for the whole picture;
    `region_weights` [R]. Attention by stage of training, heads apart: `token_to_region` [H, S, R], whose rows
    sum to 1 over regions, `region_to_token` [H, R, S], whose rows sum to 1 over words. `token_pooling` [S]
    and `region_pooling` [R] sum to 1 each.
    """

    image: Any
    words: Sequence[str]
    boxes: np.ndarray
    region_weights: np.ndarray
    token_to_region: Mapping[str, np.ndarray]
    region_to_token: Mapping[str, np.ndarray]
    token_pooling: np.ndarray
    region_pooling: np.ndarray
    title: str = ""


def region_at(boxes: np.ndarray, x: float, y: float) -> int | None:
    """The smallest of the `boxes` [R, 4] around the pixel x, y (its middle), if any."""
    inside = [
        ((x1 - x0) * (y1 - y0), number)
        for number, (x0, y0, x1, y1) in enumerate(np.asarray(boxes).tolist())
        if x0 <= x <= x1 and y0 <= y <= y1
    ]
    return min(inside)[1] if inside else None


def checked(example: AttentionExample) -> AttentionExample:
    """The example with arrays of NumPy's, and the whole picture as the box where there is none.

    Raises ValueError, with the shapes it wants, where they do not fit each other.
    """
    boxes = np.asarray(example.boxes, dtype=np.float64).reshape(-1, 4)
    if len(boxes) == 0:
        height, width = example.image.shape[-2:]
        boxes = np.array([[0, 0, width, height]], dtype=np.float64)
    found = example._replace(
        boxes=boxes,
        region_weights=np.asarray(example.region_weights),
        token_to_region={stage: np.asarray(each) for stage, each in example.token_to_region.items()},
        region_to_token={stage: np.asarray(each) for stage, each in example.region_to_token.items()},
        token_pooling=np.asarray(example.token_pooling),
        region_pooling=np.asarray(example.region_pooling),
    )
    words, regions = len(found.words), len(boxes)
    heads = {
        each.shape[0] for stages in (found.token_to_region, found.region_to_token) for each in stages.values()
    }
    fitting = (
        len(heads) == 1
        and list(found.token_to_region) == list(found.region_to_token)
        and all(each.shape[1:] == (words, regions) for each in found.token_to_region.values())
        and all(each.shape[1:] == (regions, words) for each in found.region_to_token.values())
        and found.token_pooling.shape == (words,)
        and found.region_pooling.shape == found.region_weights.shape == (regions,)
    )
    if not fitting:
        raise ValueError(
            f"example {example.title!r}: {words} words and {regions} regions want, for the same stages in "
            f"both directions, token_to_region [heads, {words}, {regions}] and region_to_token "
            f"[heads, {regions}, {words}]; token_pooling [{words}]; region_pooling and region_weights "
            f"[{regions}]"
        )
    return found
