"""Drawings: crisp at every size, boxes tight, colours told apart."""

import itertools

import numpy as np
import pytest

from workbench.data.scenes.artwork import BACKGROUNDS, Painter, scene_sprite
from workbench.data.scenes.catalogue import concepts
from workbench.data.scenes.layout import Placed, Scene


@pytest.mark.parametrize("side", [32, 64, 333])
def test_boxes_are_tight_around_what_the_object_changes(side):
    painter = Painter(side)
    for concept, style, mirrored in itertools.product(
        concepts()[::90], ("twemoji", "openmoji"), (False, True)
    ):
        width, height = painter.aspect(concept, style)
        box = (0.4, 0.3, 0.4 + 0.45 * width, 0.3 + 0.45 * height)
        thing = Placed(concept, style, "large", mirrored, box)
        # The same noise with and without the object: what differs is the object.
        empty, _ = painter.paint(Scene((), "green"), np.random.default_rng(1))
        pixels, ((x0, y0, x1, y1),) = painter.paint(Scene((thing,), "green"), np.random.default_rng(1))
        assert pixels.shape == (3, side, side) and pixels.dtype == np.uint8
        changed = np.abs(pixels.astype(int) - empty).max(0) > 12
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        result = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert np.abs(np.subtract(result, (x0, y0, x1, y1))).max() <= 1, (concept.name, style)
        assert np.abs(np.subtract((x0, y0, x1, y1), np.multiply(box, side))).max() <= 2 + 0.01 * side


def test_shape_does_not_depend_on_the_image_size():
    small, large = Painter(32), Painter(512)
    assert all(
        small.aspect(concept, "openmoji") == large.aspect(concept, "openmoji") for concept in concepts()[::50]
    )


def test_mirroring_mirrors():
    painter, concept = Painter(64), concepts()[0]
    width, height = painter.aspect(concept, "twemoji")
    box = (0.25, 0.25, 0.25 + 0.5 * width, 0.25 + 0.5 * height)
    pictures = []
    for mirrored in (False, True):
        scene = Scene((Placed(concept, "twemoji", "large", mirrored, box),), "white")
        pixels, ((x0, y0, x1, y1),) = painter.paint(scene, np.random.default_rng(0))
        pictures.append(pixels[:, int(y0) : int(y1), int(x0) : int(x1)].astype(int))
    assert np.abs(pictures[0] - pictures[1]).mean() > 20
    assert (
        np.abs(pictures[0] - pictures[1][:, :, ::-1]).mean() < 12
    )  # the backgrounds show through at the rim


def test_backgrounds_keep_their_colour_under_the_noise():
    painter = Painter(48)
    reference = np.array(list(BACKGROUNDS.values()))
    for index, name in enumerate(BACKGROUNDS):
        for seed in range(20):
            pixels, _ = painter.paint(Scene((), name), np.random.default_rng(seed))
            assert pixels.std(axis=(1, 2)).min() > 2
            distances = np.linalg.norm(reference - pixels.mean(axis=(1, 2)), axis=1)
            assert distances.argmin() == index


def test_sprites_are_sharp():
    sprite = np.asarray(scene_sprite(concepts()[1], "openmoji", 200).convert("L"), dtype=float)
    assert np.abs(np.diff(sprite, axis=1)).max() > 150  # a black outline against a light fill, within a pixel
