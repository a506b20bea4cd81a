"""Positions labels so that they do not overlap."""

import numpy as np
from jaxtyping import Float, Num


def free_places(
    candidates: Num[np.ndarray, "n c 4"],
    obstacles: Num[np.ndarray, "m 4"],
    bounds: tuple[float, float],
) -> Float[np.ndarray, "n 4"]:
    """Choose a position for each of n labels among its c candidates, one label after the other.

    Positions and `obstacles` are rectangles (x0, y0, x1, y1) in one unit. Candidates are first shifted to lie
    between 0 and `bounds` (width, height). A label takes the candidate that overlaps least with the labels
    before it. Ties are broken by the least overlap with the obstacles, then by the order of the candidates.
    """
    chosen = np.empty((0, 4))
    for rectangles in candidates:
        low, high = rectangles[:, :2], rectangles[:, 2:]
        inward = -np.clip(high - bounds, 0, None)
        inward -= np.clip(low + inward, None, 0)
        rectangles = rectangles + np.tile(inward, 2)
        sizes = np.prod(high - low, axis=1)
        # Rounded, because a slightly smaller overlap does not justify a position that is harder to read.
        on_labels, on_obstacles = (
            np.round(_overlap(rectangles, other).sum(1) / sizes, 2) for other in (chosen, obstacles)
        )
        chosen = np.vstack([chosen, rectangles[np.lexsort((on_obstacles, on_labels))[0]]])
    return chosen


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The areas [n, m] that rectangles a [n, 4] and b [m, 4] share."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.asarray(np.prod(np.clip(high - low, 0, None), axis=2))
