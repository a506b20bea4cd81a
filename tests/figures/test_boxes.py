"""The picture with its boxes: what is heavy is thick, what is looked at shines, labels lie free."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.figures.boxes import DIM, LABEL, SIDE, picture_with_boxes
from workbench.figures.style import INK

BOXES = np.array([[2.0, 2, 12, 12], [30, 30, 50, 60], [30, 5, 40, 12]])


def picture(size: tuple[int, int] = (64, 64)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (3, *size), dtype=np.uint8)


def pixels(figure) -> np.ndarray:
    data = figure.data[0].source.removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).transpose(2, 0, 1)


def outlines(figure) -> list:
    return [trace for trace in figure.data if trace.name == "boxes" and trace.line.color == INK]


def test_the_picture_is_shown_as_it_is_and_boxes_lie_on_its_pixels() -> None:
    image = picture()
    for given in (image, torch.from_numpy(image)):
        figure = picture_with_boxes(given, BOXES)
        np.testing.assert_array_equal(pixels(figure), image)
    assert figure.data[0].x0 == 0.5 and figure.data[0].dx == 1
    assert list(figure.layout.yaxis.range) == [64, 0]
    assert [(min(item.x), min(item.y), max(item.x), max(item.y)) for item in outlines(figure)] == [
        tuple(box) for box in BOXES
    ]
    assert [item.text for item in figure.layout.annotations] == ["1", "2", "3"]


def test_a_heavy_region_has_a_thick_outline() -> None:
    lines = outlines(picture_with_boxes(picture(), BOXES, [0.2, 0.7, 0.1]))
    assert [item.line.width for item in lines] == pytest.approx([1 + 3 * 2 / 7, 4, 1 + 3 / 7])
    assert lines[1].opacity == 1 > lines[0].opacity > lines[2].opacity
    assert len({item.line.width for item in outlines(picture_with_boxes(picture(), BOXES))}) == 1
    assert (
        len({item.line.width for item in outlines(picture_with_boxes(picture(), BOXES, [0.0, 0.0, 0.0]))})
        == 1
    )


def test_what_is_looked_at_keeps_its_colours() -> None:
    image = picture()
    shown = pixels(picture_with_boxes(image, BOXES, highlighted=np.array([0.25, 0.5, 0.0])))
    pale = 255 - (255 - image.astype(float)) * DIM
    np.testing.assert_array_equal(shown[:, 30:60, 30:50], image[:, 30:60, 30:50])
    np.testing.assert_allclose(shown[:, 5:12, 30:40], pale[:, 5:12, 30:40], atol=0.51)
    np.testing.assert_allclose(shown[:, 13:30], np.where(np.ones(64) > 0, pale, image)[:, 13:30], atol=0.51)
    half = 255 - (255 - image.astype(float)) * (DIM + (1 - DIM) / 2)
    np.testing.assert_allclose(shown[:, 2:12, 2:12], half[:, 2:12, 2:12], atol=0.51)
    # Compared with more, less shines.
    shown = pixels(picture_with_boxes(image, BOXES, highlighted=np.array([0.25, 0.5, 0.0]), most=1.0))
    np.testing.assert_allclose(shown[:, 30:60, 30:50], half[:, 30:60, 30:50], atol=0.51)


def test_where_boxes_overlap_the_brighter_one_shines() -> None:
    image, boxes = picture(), np.array([[0.0, 0, 40, 40], [20, 20, 60, 60]])
    for light in ([1.0, 0.1], [0.1, 1.0]):
        shown = pixels(picture_with_boxes(image, boxes, highlighted=np.array(light)))
        np.testing.assert_array_equal(shown[:, 20:40, 20:40], image[:, 20:40, 20:40])


@pytest.mark.parametrize("seed", range(5))
def test_labels_of_many_boxes_lie_free_and_inside(seed: int) -> None:
    corners = np.random.default_rng(seed).uniform(0, 44, size=(16, 2))
    boxes = np.concatenate([corners, corners + 15], axis=1)
    figure = picture_with_boxes(picture(), boxes, labels=[f"{number} · 10%" for number in range(16)])
    half = np.array([[7.2 * len(item.text) + 8, LABEL] for item in figure.layout.annotations]) / 2
    centres = np.array([[item.x, item.y] for item in figure.layout.annotations]) * SIDE / 64
    assert (centres - half > -0.01).all() and (centres + half < SIDE + 0.01).all()
    apart = np.abs(centres[:, None] - centres[None]) >= half[:, None] + half[None] - 0.01
    assert (apart.any(2) | np.eye(16, dtype=bool)).all()


def test_no_box_and_the_whole_picture() -> None:
    assert len(picture_with_boxes(picture(), np.empty((0, 4)), np.empty(0)).data) == 1
    whole = picture_with_boxes(picture(), np.array([[0.0, 0, 64, 64]]), [1.0], highlighted=[1.0])
    np.testing.assert_array_equal(pixels(whole), picture())


def test_a_large_picture_shrinks_and_keeps_its_coordinates() -> None:
    figure = picture_with_boxes(picture((300, 1360)), np.array([[100.0, 100, 700, 250]]))
    assert pixels(figure).shape == (3, 150, 680) and figure.data[0].dx == 2 and figure.data[0].x0 == 1
    assert list(figure.layout.xaxis.range) == [0, 1360] and max(outlines(figure)[0].x) == 700


def test_what_does_not_fit_is_refused() -> None:
    for wrong in ({"weights": [1.0]}, {"highlighted": [1.0]}, {"labels": ["one"]}):
        with pytest.raises(ValueError, match="3 boxes but 1"):
            picture_with_boxes(picture(), BOXES, **wrong)
    with pytest.raises(ValueError, match="uint8"):
        picture_with_boxes(picture() / 255, BOXES)
