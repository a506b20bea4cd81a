"""The interface of region proposers, and the proposers that need no detector."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from workbench.errors import SettingError

BoxesOf = Callable[[Tensor, np.ndarray | None, int], np.ndarray]
SIMPLE = ("ground_truth", "grid", "random", "whole_image")
SMALLEST_SIDE = 4  # pixels
_RANDOM_SIDES = (0.15, 0.6)  # of the picture's; the things of a scene take 0.25 to 0.49


class ProposedRegions(NamedTuple):
    """The regions of one picture, best first.

    `boxes` are [x0, y0, x1, y1] in pixels of the picture, with x to the right and y downwards. `classes` are
    -1 if the proposer has none. `confidences` lie in [0, 1].
    """

    boxes: Float32[np.ndarray, "regions 4"]
    classes: Int64[np.ndarray, " regions"]
    confidences: Float32[np.ndarray, " regions"]


class Proposer:
    """Proposes regions of pictures.

    `fingerprint` is JSON and holds everything that the boxes depend on. `boxes_of` maps a picture, its boxes
    in the dataset and its row to boxes [N, 4]. The regions of a picture do not depend on other pictures.
    """

    def __init__(self, fingerprint: dict[str, Any], boxes_of: BoxesOf | None = None) -> None:
        self.fingerprint = fingerprint
        self._boxes_of = boxes_of

    def __call__(
        self,
        pictures: Sequence[UInt8[Tensor, "3 _ _"]],
        known: Sequence[np.ndarray | None],
        rows: Sequence[int],
    ) -> list[ProposedRegions]:
        """The regions of pictures (uint8 RGB, of any sizes). `known` holds each picture's boxes in the
        dataset (None if it has none) and `rows` its row there."""
        assert self._boxes_of is not None
        return [as_regions(self._boxes_of(*inputs)) for inputs in zip(pictures, known, rows, strict=True)]


def as_regions(
    boxes: np.ndarray, confidences: np.ndarray | None = None, classes: np.ndarray | None = None
) -> ProposedRegions:
    """Regions from boxes [N, 4]. By default the confidence is 1 and the class -1."""
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    ones, unknown = np.ones(len(boxes)), np.full(len(boxes), -1)
    return ProposedRegions(
        boxes,
        np.asarray(unknown if classes is None else classes, dtype=np.int64),
        np.asarray(ones if confidences is None else confidences, dtype=np.float32),
    )


def select_regions(regions: ProposedRegions, height: int, width: int, limit: int = 16) -> ProposedRegions:
    """The best `limit` regions by confidence x relative area, best first, clipped to the picture.

    Drops boxes with NaN or with a side under 4 pixels after clipping. Ties keep their order. The result may
    be empty. The caller then uses the whole picture as the only region.
    """
    boxes = np.clip(regions.boxes, 0, np.array([width, height, width, height], dtype=np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    usable = (sides >= SMALLEST_SIDE).all(1) & ~np.isnan(regions.confidences)  # NaN >= 4 is false
    worth = regions.confidences * sides.prod(1) / (height * width)
    order = np.argsort(-worth[usable], kind="stable")[:limit]
    kept = np.flatnonzero(usable)[order]
    return ProposedRegions(boxes[kept], regions.classes[kept], regions.confidences[kept])


def simple_proposer(name: str, boxes: int, seed: int) -> Proposer:
    """The proposer of `SIMPLE` called `name`.

    "grid": a square grid of at most `boxes` cells, row by row. "random": `boxes` with uniform sides and
    positions, a function of (seed, row) and the picture's size. "ground_truth": those in the dataset
    (SettingError if it has none). "whole_image": none, so that the whole picture becomes the only region.
    """
    cells = math.isqrt(boxes)
    choices: dict[str, tuple[dict[str, Any], BoxesOf]] = {
        "ground_truth": ({}, _known),
        "grid": ({"cells": cells}, functools.partial(_grid, cells)),
        "random": ({"boxes": boxes, "seed": seed}, functools.partial(_random, boxes, seed)),
        "whole_image": ({}, _none),
    }
    settings, boxes_of = choices[name]
    return Proposer({"proposer": name, **settings}, boxes_of)


def _known(picture: Tensor, known: np.ndarray | None, row: int) -> np.ndarray:
    if known is None:
        problem = f"the dataset has no boxes of picture {row}"
        raise SettingError("regions.proposer", "ground_truth", problem, "Take yolo, grid or random.")
    return known


def _grid(cells: int, picture: Tensor, known: np.ndarray | None, row: int) -> np.ndarray:
    edges = np.arange(cells + 1) / cells
    y, x = np.divmod(np.arange(cells**2), cells)
    return np.stack([edges[x], edges[y], edges[x + 1], edges[y + 1]], axis=1) * _sides(picture)


def _random(boxes: int, seed: int, picture: Tensor, known: np.ndarray | None, row: int) -> np.ndarray:
    rng = np.random.default_rng([seed, int(row)])
    sides = rng.uniform(*_RANDOM_SIDES, (boxes, 2))
    corner = rng.random((boxes, 2)) * (1 - sides)
    return np.concatenate([corner, corner + sides], axis=1) * _sides(picture)


def _none(picture: Tensor, known: np.ndarray | None, row: int) -> np.ndarray:
    return np.empty((0, 4))


def _sides(picture: Tensor) -> np.ndarray:
    height, width = picture.shape[1:]
    return np.array([width, height, width, height])
