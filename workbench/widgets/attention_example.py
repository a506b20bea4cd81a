"""The examples of the attention explorer: a picture, its caption and the attention between them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class AttentionExample(NamedTuple):
    """A picture with R regions, its caption with S words, and the attention between them.

    `image` is uint8 [3, H, W]. `boxes` [R, 4] are in its pixels (x0, y0, x1, y1); no box stands for the whole
    picture. `region_weights` is [R]. Attention is given by stage of training and for each head:
    `token_to_region` [H, S, R] sums to 1 over regions, `region_to_token` [H, R, S] sums to 1 over words.
    `token_pooling` [S] and `region_pooling` [R] each sum to 1. `grid`, rows and columns, is given if the
    regions are the patches of a grid, row by row. `unweighted` names the stages whose attention does not
    contain the region weights.
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
    grid: tuple[int, int] | None = None
    unweighted: Sequence[str] = ()


def region_at(boxes: np.ndarray, x: float, y: float) -> int | None:
    """The index of the smallest of the `boxes` [R, 4] that contains the point (x, y), None if none does."""
    inside = [
        ((x1 - x0) * (y1 - y0), number)
        for number, (x0, y0, x1, y1) in enumerate(np.asarray(boxes).tolist())
        if x0 <= x <= x1 and y0 <= y <= y1
    ]
    return min(inside)[1] if inside else None


def checked(example: AttentionExample) -> AttentionExample:
    """Convert an example to NumPy arrays and check it. Without boxes the whole picture becomes the only one.

    Raises ValueError, naming the expected shapes, if the shapes do not fit together.
    """
    boxes = np.asarray(example.boxes, dtype=np.float64).reshape(-1, 4)
    if len(boxes) == 0:
        height, width = example.image.shape[-2:]
        boxes = np.array([[0, 0, width, height]], dtype=np.float64)
    to_region = {stage: np.asarray(values) for stage, values in example.token_to_region.items()}
    to_token = {stage: np.asarray(values) for stage, values in example.region_to_token.items()}
    weights, tokens = np.asarray(example.region_weights), np.asarray(example.token_pooling)
    regions = np.asarray(example.region_pooling)
    s, r = len(example.words), len(boxes)
    fits = (
        len({values.shape[0] for stages in (to_region, to_token) for values in stages.values()}) == 1
        and list(to_region) == list(to_token)
        and all(values.shape[1:] == (s, r) for values in to_region.values())
        and all(values.shape[1:] == (r, s) for values in to_token.values())
        and (tokens.shape, regions.shape, weights.shape) == ((s,), (r,), (r,))
    )
    if not fits:
        raise ValueError(
            f"example {example.title!r}: {s} words and {r} regions need, for the same stages in both "
            f"directions, token_to_region [heads, {s}, {r}] and region_to_token [heads, {r}, {s}]; "
            f"token_pooling [{s}]; region_pooling and region_weights [{r}]"
        )
    if example.grid is not None and example.grid[0] * example.grid[1] != r:
        rows, columns = example.grid
        raise ValueError(f"example {example.title!r}: a grid of {rows} x {columns} has not {r} regions")
    return example._replace(
        boxes=boxes,
        region_weights=weights,
        token_to_region=to_region,
        region_to_token=to_token,
        token_pooling=tokens,
        region_pooling=regions,
    )
