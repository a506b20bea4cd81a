"""The picture of the attention explorer: boxes that light up, or a heat map where the regions are patches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.figures.boxes import picture_with_boxes
from workbench.figures.heat import heat_over
from workbench.widgets.attention_example import AttentionExample

# Colours of words that are selected together, also readable as text on white.
SEVERAL = ("#00796b", "#b3541e", "#0077bb", "#aa1f6b", "#666600", "#332288")
WRITTEN = 0.05  # the smallest share of a region that is written into the picture


def attention_picture(
    example: AttentionExample,
    attention: Float[np.ndarray, "s r"],
    words: Sequence[int],
    region: int | None,
    most: float,
) -> Any:
    """Draw what the selected `words` look at, or the selected `region`, in the picture of an example.

    Boxes light up by the words' mean attention, as strongly as it is close to `most`. Patches become a heat
    map in each word's own colour, or the mean of all words where nothing is selected, relative to the largest
    value.
    """
    names = [str(number + 1) for number in range(len(example.boxes))]
    if example.grid is not None:
        return _patches(example, attention, words, region)
    weights, highlighted, labels = example.region_weights, None, names
    if words:
        weights = highlighted = attention[list(words)].mean(0)
        shares = zip(names, highlighted, strict=True)
        labels = [f"{name} · {share:.0%}" if share >= WRITTEN else name for name, share in shares]
    elif region is not None:
        weights = highlighted = np.eye(len(names))[region]
    return picture_with_boxes(
        example.image,
        example.boxes,
        weights,
        highlighted=highlighted,
        most=most if words else None,
        labels=labels,
    )


def word_colours(words: Sequence[int]) -> dict[int, str]:
    """The colour of each selected word."""
    return {word: SEVERAL[place % len(SEVERAL)] for place, word in enumerate(words)}


def _patches(
    example: AttentionExample,
    attention: np.ndarray,
    words: Sequence[int],
    region: int | None,
) -> Any:
    assert example.grid is not None
    if region is not None:
        return picture_with_boxes(example.image, example.boxes[[region]], labels=[""])
    height, width = np.shape(example.image)[1:]
    low, high = example.boxes[:, :2].min(0), example.boxes[:, 2:].max(0)
    left, top, across, down = np.concatenate([low, high - low]) / [width, height, width, height]
    heats = attention[list(words)] if words else attention.mean(0, keepdims=True)
    colours = list(word_colours(words).values()) if words else [SEVERAL[0]]
    pixels = heat_over(
        example.image,
        heats.reshape(-1, *example.grid),
        colours,
        window=(left, top, across, down),
    )
    return picture_with_boxes(pixels, np.empty((0, 4)))
