"""Places the objects of a scene, and finds the relations that are unambiguous.

All lengths are fractions of the picture's side, x to the right and y downwards.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.data.scenes.catalogue import Concept

Box = tuple[float, float, float, float]  # x0, y0, x1, y1
Aspect = Callable[[Concept, str], tuple[float, float]]  # a drawing's width and height, the longer one being 1

SIZES = {"small": (0.25, 0.31), "large": (0.41, 0.49)}  # longer side; the gap keeps the words apart
_COUNT_SHARES = (0.35, 0.40, 0.25)  # of scenes with one, two and three objects
_MARGIN = 0.015
_MAX_OVERLAP = 0.05  # of the smaller box
_INVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Placed:
    """One object of a scene."""

    concept: Concept
    style: str
    size: str
    mirrored: bool
    box: Box


@dataclass(frozen=True)
class Scene:
    """One to three objects in front of a background."""

    objects: tuple[Placed, ...]
    background: str


def draw_scene(
    rng: np.random.Generator,
    drawings: Sequence[tuple[Concept, tuple[str, ...]]],
    backgrounds: Sequence[str],
    aspect: Aspect,
) -> Scene:
    """Draw a scene of the given concepts in the given styles whose description is unambiguous.

    That means a clear place in the picture for a single object, and otherwise a clear relation of at least
    one pair. Boxes hardly overlap.
    """
    count = 1 + int(rng.choice(3, p=_COUNT_SHARES))
    background = backgrounds[int(rng.integers(len(backgrounds)))]
    chosen = [drawings[i] for i in rng.choice(len(drawings), size=count, replace=False)]
    styled = [(concept, styles[int(rng.integers(len(styles)))]) for concept, styles in chosen]
    while True:
        objects = tuple(_place(rng, concept, style, aspect(concept, style)) for concept, style in styled)
        if _is_clear([thing.box for thing in objects]):
            return Scene(objects, background)


def relation(a: Box, b: Box) -> str | None:
    """The clear position of `a` relative to `b`, "left", "right", "above" or "below"; None if ambiguous."""
    dx, dy = (b[0] + b[2] - a[0] - a[2]) / 2, (b[1] + b[3] - a[1] - a[3]) / 2
    if abs(dx) >= 0.2 and abs(dx) >= 1.2 * abs(dy) and max(b[0] - a[2], a[0] - b[2]) >= -0.03:
        return "left" if dx > 0 else "right"
    if abs(dy) >= 0.2 and abs(dy) >= 1.2 * abs(dx) and max(b[1] - a[3], a[1] - b[3]) >= -0.03:
        return "above" if dy > 0 else "below"
    return None


def inverse(direction: str) -> str:
    """The relation of `b` to `a`, given that of `a` to `b`."""
    return _INVERSE[direction]


def related_pairs(boxes: Sequence[Box]) -> list[tuple[int, int, str]]:
    """(a, b, relation of a to b) for each pair a < b whose relation is clear."""
    pairs = [(a, b) for b in range(len(boxes)) for a in range(b)]
    return [(a, b, direction) for a, b in pairs if (direction := relation(boxes[a], boxes[b]))]


def place_in_picture(box: Box) -> str | None:
    """The clear position of a box in the picture, such as "left", "top right" or "middle"; None if
    ambiguous."""
    horizontal = _third((box[0] + box[2]) / 2, "left", "right")
    vertical = _third((box[1] + box[3]) / 2, "top", "bottom")
    if horizontal is None or vertical is None:
        return None
    return " ".join(word for word in (vertical, horizontal) if word) or "middle"


def _third(centre: float, low: str, high: str) -> str | None:
    if centre <= 0.36:
        return low
    if centre >= 0.64:
        return high
    return "" if 0.43 <= centre <= 0.57 else None


def _place(rng: np.random.Generator, concept: Concept, style: str, shape: tuple[float, float]) -> Placed:
    size = "large" if rng.random() < 0.5 else "small"
    smallest, largest = SIZES[size]
    side, across, down = rng.random(3)
    longer = smallest + (largest - smallest) * side
    width, height = longer * shape[0], longer * shape[1]
    x0 = _MARGIN + across * (1 - 2 * _MARGIN - width)
    y0 = _MARGIN + down * (1 - 2 * _MARGIN - height)
    return Placed(concept, style, size, bool(rng.random() < 0.5), (x0, y0, x0 + width, y0 + height))


def _is_clear(boxes: Sequence[Box]) -> bool:
    if len(boxes) == 1:
        return place_in_picture(boxes[0]) is not None
    if any(_overlap(boxes[a], boxes[b]) > _MAX_OVERLAP for b in range(len(boxes)) for a in range(b)):
        return False
    return bool(related_pairs(boxes))


def _overlap(a: Box, b: Box) -> float:
    """Shared area as a fraction of the smaller box."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
