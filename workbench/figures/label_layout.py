"""Places for labels, so that none lies on another."""

import numpy as np
from jaxtyping import Float, Num


def free_places(
    candidates: Num[np.ndarray, "n c 4"],
    things: Num[np.ndarray, "m 4"],
    bounds: tuple[float, float],
) -> Float[np.ndarray, "n 4"]:
    """A place for each of n labels out of its c candidates, chosen for one label after the other.

    Places and `things` not to be covered are rectangles x0, y0, x1, y1 in one unit. Candidates are first
    moved between 0 and `bounds` (width, height). A label takes the one that covers least of the labels before
    it and, where that leaves a choice, of the things; the first of equals.
    """
    chosen = np.empty((0, 4))
    for places in candidates:
        low, high = places[:, :2], places[:, 2:]
        inward = -np.clip(high - bounds, 0, None)
        inward -= np.clip(low + inward, None, 0)
        places = places + np.tile(inward, 2)
        sizes = np.prod(high - low, axis=1)
        # Rounded: a hair less covered is no reason to leave the place that is read most easily.
        labels, rest = (np.round(_overlap(places, other).sum(1) / sizes, 2) for other in (chosen, things))
        chosen = np.vstack([chosen, places[np.lexsort((rest, labels))[0]]])
    return chosen


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The areas [n, m] that rectangles a [n, 4] and b [m, 4] share."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.asarray(np.prod(np.clip(high - low, 0, None), axis=2))
