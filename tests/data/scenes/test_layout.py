"""Positions in scenes: what is said to be clear is clear."""

import numpy as np
import pytest

from workbench.data.scenes.catalogue import concepts
from workbench.data.scenes.layout import SIZES, draw_scene, inverse, place_in_picture, related_pairs, relation


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0.1, 0.4, 0.3, 0.6), (0.6, 0.4, 0.9, 0.6), "left"),
        ((0.4, 0.05, 0.6, 0.2), (0.4, 0.5, 0.6, 0.9), "above"),
        ((0.1, 0.1, 0.3, 0.3), (0.6, 0.6, 0.8, 0.8), None),  # on the diagonal
        ((0.4, 0.4, 0.6, 0.6), (0.45, 0.4, 0.65, 0.6), None),  # on top of one another
        ((0.1, 0.1, 0.6, 0.6), (0.3, 0.1, 0.9, 0.6), None),  # apart by their centres, but overlapping
    ],
)
def test_relation(a, b, expected):
    assert relation(a, b) == expected
    assert relation(b, a) == (expected and inverse(expected))


@pytest.mark.parametrize(
    ("centre", "expected"),
    [
        ((0.2, 0.5), "left"),
        ((0.8, 0.2), "top right"),
        ((0.5, 0.8), "bottom"),
        ((0.5, 0.5), "middle"),
        ((0.4, 0.5), None),
        ((0.2, 0.6), None),
    ],
)
def test_place_in_picture(centre, expected):
    x, y = centre
    assert place_in_picture((x - 0.1, y - 0.1, x + 0.1, y + 0.1)) == expected


def test_scenes_stay_inside_and_hardly_overlap():
    drawings = [(concept, ("twemoji", "openmoji")) for concept in concepts()[:40]]
    rng = np.random.default_rng(5)
    counts = np.zeros(4)
    for _ in range(500):
        scene = draw_scene(rng, drawings, ["red", "blue"], lambda concept, style: (1.0, 0.7))
        boxes = np.array([thing.box for thing in scene.objects])
        counts[len(boxes)] += 1
        assert boxes.min() > 0 and boxes.max() < 1
        assert len({thing.concept for thing in scene.objects}) == len(boxes)
        for thing, box in zip(scene.objects, boxes, strict=True):
            smallest, largest = SIZES[thing.size]
            assert smallest <= max(box[2:] - box[:2]) <= largest + 1e-9
        for b in range(len(boxes)):
            for a in range(b):
                sides = np.minimum(boxes[a, 2:], boxes[b, 2:]) - np.maximum(boxes[a, :2], boxes[b, :2])
                area = min(np.prod(box[2:] - box[:2]) for box in (boxes[a], boxes[b]))
                assert np.prod(sides.clip(0)) <= 0.05 * area + 1e-9
        assert (
            place_in_picture(scene.objects[0].box)
            if len(boxes) == 1
            else related_pairs([thing.box for thing in scene.objects])
        )
    assert np.allclose(counts[1:] / counts.sum(), (0.35, 0.40, 0.25), atol=0.08)
