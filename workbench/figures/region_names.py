"""Where on a map the names of its groups and a sample of its pictures are shown."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

MAP = 500, 370  # pixels of a map in a narrow window, for which names must not overlap
LETTER, LINE = 6.4, 20  # pixels of a letter and of a line
DENSEST = 400  # members among which the densest place of a group is looked for

Positions = Float[np.ndarray, "n 2"]


class RegionName(NamedTuple):
    """The name of a region of a map, and its place."""

    x: float
    y: float
    text: str


def region_names(
    positions: Positions,
    labels: Sequence[Any] | np.ndarray,
    placed: Sequence[RegionName] = (),
    most: int = 24,
) -> list[RegionName]:
    """At most `most` names of groups, each where its group [n] is densest, the largest groups first.

    Of a name that is a list, such as "traffic light, city", the first entry is written. A name that would
    overlap one before it, or that of a `placed` point, in a map of 500 x 370 pixels is left out.
    """
    names, group = np.unique([str(label) for label in labels], return_inverse=True)
    texts = [name.split(",")[0] for name in names.tolist()]
    extent = np.maximum(np.ptp(positions, axis=0), 1e-9) if len(positions) else np.ones(2)
    scale = np.array(MAP) / extent
    chosen: list[RegionName] = []
    taken = np.array([_box(*point, scale) for point in placed]).reshape(-1, 4)
    for number in np.argsort(-np.bincount(group), kind="stable"):
        x, y = _densest(positions[group == number], extent)
        box = _box(x, y, texts[number], scale)
        if not ((box[:2] < taken[:, 2:]) & (box[2:] > taken[:, :2])).all(1).any():
            chosen.append(RegionName(float(x), float(y), texts[number]))
            taken = np.vstack([taken, box])
        if len(chosen) == most:
            break
    return chosen


def _box(x: float, y: float, text: str, scale: np.ndarray) -> np.ndarray:
    """The rectangle of a name, in pixels: left, bottom, right, top."""
    half = np.array([len(text) * LETTER, LINE]) / 2
    centre = np.array([x, y]) * scale
    return np.concatenate([centre - half, centre + half])


def _densest(points: Positions, extent: np.ndarray) -> np.ndarray:
    """The mean of the points around the one with the most neighbours."""
    some = points[:: -(-len(points) // DENSEST)]
    apart = np.linalg.norm((some[:, None] - some[None]) / extent, axis=-1)
    near = apart < 0.04
    return some[near[near.sum(1).argmax()]].mean(0)


def spread_out(
    positions: Positions, low: np.ndarray, high: np.ndarray, cells: tuple[int, int]
) -> Int[np.ndarray, " m"]:
    """Points that cover the rectangle from `low` to `high`: of each of `cells` (columns, rows) the one
    nearest to its middle, if any."""
    place = (positions - low) / np.maximum(np.asarray(high) - low, 1e-12) * cells
    inside = np.flatnonzero(((place >= 0) & (place < cells)).all(1))
    column, row = np.floor(place[inside]).astype(int).T
    off_centre = np.abs(place[inside] % 1 - 0.5).max(1)
    order = np.argsort(off_centre, kind="stable")
    _, first = np.unique((column * cells[1] + row)[order], return_index=True)
    return np.sort(inside[order[first]])
