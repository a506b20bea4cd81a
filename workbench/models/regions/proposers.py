"""Where the regions of a picture are: the interface, and the proposers that need no detector."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from workbench.errors import SettingError

SMALLEST_SIDE = 4  # pixels
_RANDOM_SIDES = (0.15, 0.6)  # of the picture's; the things of a scene take 0.25 to 0.49


class Regions(NamedTuple):
    """The regions of one picture, best first.

    `boxes` are [x0, y0, x1, y1] in pixels of the picture, x to the right and y downwards; `classes` are -1
    where the proposer knows none; `confidences` lie in [0, 1].
    """

    boxes: Float32[np.ndarray, "regions 4"]
    classes: Int64[np.ndarray, " regions"]
    confidences: Float32[np.ndarray, " regions"]


@runtime_checkable
class Proposer(Protocol):
    """Proposes regions of pictures.

    Called with `pictures` (uint8 RGB [3, H, W], of any sizes), the boxes `known` of each (None where there
    are none) and the `rows` they have in their data set; gives the regions of each. `fingerprint` is JSON
    and says all that the boxes depend on. A picture's regions do not depend on the others in the call.
    """

    fingerprint: dict[str, Any]

    def __call__(
        self,
        pictures: Sequence[UInt8[Tensor, "3 _ _"]],
        known: Sequence[np.ndarray | None],
        rows: Sequence[int],
    ) -> list[Regions]: ...


def as_regions(
    boxes: np.ndarray, confidences: np.ndarray | None = None, classes: np.ndarray | None = None
) -> Regions:
    """Regions of boxes [N, 4]; confidence 1 and class -1 unless given."""
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    ones, unknown = np.ones(len(boxes)), np.full(len(boxes), -1)
    return Regions(
        boxes,
        np.asarray(unknown if classes is None else classes, dtype=np.int64),
        np.asarray(ones if confidences is None else confidences, dtype=np.float32),
    )


def select_regions(regions: Regions, height: int, width: int, limit: int = 16) -> Regions:
    """The best `limit` regions by confidence x relative area, best first, clipped to the picture.

    Leaves out boxes with a side under 4 pixels after clipping, and those that hold NaN; equals keep their
    order. Where nothing is left the result is empty: the whole picture is then the caller's one region.
    """
    boxes = np.clip(regions.boxes, 0, np.array([width, height, width, height], dtype=np.float32))
    sides = boxes[:, 2:] - boxes[:, :2]
    usable = (sides >= SMALLEST_SIDE).all(1) & ~np.isnan(regions.confidences)  # NaN >= 4 is false
    worth = regions.confidences * sides.prod(1) / (height * width)
    order = np.argsort(-worth[usable], kind="stable")[:limit]
    kept = np.flatnonzero(usable)[order]
    return Regions(boxes[kept], regions.classes[kept], regions.confidences[kept])


class GroundTruth:
    """The boxes that the data set knows; raises SettingError where it knows none of a picture."""

    fingerprint: dict[str, Any] = {"proposer": "ground_truth"}  # noqa: RUF012 -- never changed

    def __call__(
        self,
        pictures: Sequence[UInt8[Tensor, "3 _ _"]],
        known: Sequence[np.ndarray | None],
        rows: Sequence[int],
    ) -> list[Regions]:
        found = []
        for boxes, row in zip(known, rows, strict=True):
            if boxes is None:
                problem = f"the data set knows no boxes of picture {row}"
                raise SettingError("regions.proposer", "ground_truth", problem, "Take yolo, grid or random.")
            found.append(as_regions(boxes))
        return found


class Grid:
    """The same square grid over every picture: as many cells as `boxes` allow, row by row."""

    def __init__(self, boxes: int) -> None:
        self.cells = math.isqrt(boxes)
        self.fingerprint: dict[str, Any] = {"proposer": "grid", "cells": self.cells}

    def __call__(
        self,
        pictures: Sequence[UInt8[Tensor, "3 _ _"]],
        known: Sequence[np.ndarray | None],
        rows: Sequence[int],
    ) -> list[Regions]:
        edges = np.arange(self.cells + 1) / self.cells
        y, x = np.divmod(np.arange(self.cells**2), self.cells)
        relative = np.stack([edges[x], edges[y], edges[x + 1], edges[y + 1]], axis=1)
        return [as_regions(relative * _sides(picture)) for picture in pictures]


class Random:
    """`boxes` boxes a picture, sides and place uniform, a function of (seed, row) and the picture's size."""

    def __init__(self, boxes: int, seed: int) -> None:
        self.boxes, self.seed = boxes, seed
        self.fingerprint: dict[str, Any] = {"proposer": "random", "boxes": boxes, "seed": seed}

    def __call__(
        self,
        pictures: Sequence[UInt8[Tensor, "3 _ _"]],
        known: Sequence[np.ndarray | None],
        rows: Sequence[int],
    ) -> list[Regions]:
        return [
            as_regions(self._relative(row) * _sides(picture))
            for picture, row in zip(pictures, rows, strict=True)
        ]

    def _relative(self, row: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, int(row)])
        sides = rng.uniform(*_RANDOM_SIDES, (self.boxes, 2))
        corner = rng.random((self.boxes, 2)) * (1 - sides)
        return np.concatenate([corner, corner + sides], axis=1)


class WholeImage:
    """No region at all, so that the whole picture becomes the one region."""

    fingerprint: dict[str, Any] = {"proposer": "whole_image"}  # noqa: RUF012 -- never changed

    def __call__(
        self,
        pictures: Sequence[UInt8[Tensor, "3 _ _"]],
        known: Sequence[np.ndarray | None],
        rows: Sequence[int],
    ) -> list[Regions]:
        return [as_regions(np.empty((0, 4))) for _ in pictures]


def _sides(picture: Tensor) -> np.ndarray:
    height, width = picture.shape[1:]
    return np.array([width, height, width, height])
