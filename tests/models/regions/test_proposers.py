"""The proposers without a detector, and which regions are kept."""

import numpy as np
import pytest
import torch

from workbench.errors import SettingError
from workbench.models.regions.detector import load_proposer
from workbench.models.regions.proposers import ProposedRegions, as_regions, select_regions


def pictures(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    return [torch.zeros(3, height, width, dtype=torch.uint8) for height, width in sizes]


def test_the_best_regions_by_confidence_and_area() -> None:
    boxes = [
        [10, 10, 30, 30],  # 400 pixels
        [-50, -50, 20, 20],  # 400 once clipped
        [0, 0, 40, 60],  # the whole picture
        [5, 5, 8.9, 60],  # too narrow
        [36.5, 0, 90, 60],  # too narrow once clipped
        [np.nan, 0, 40, 60],
        [0, 0, 40, 60],  # of unknown confidence
        [30, 30, 10, 10],  # inside out
        [20, 20, 24, 60],  # narrow enough
        [50, 10, 60, 20],  # outside
    ]
    confidences = np.array([0.5, 0.5, 0.05, 1, 1, 1, np.nan, 1, 0.9, 1])
    regions = as_regions(np.array(boxes), confidences, np.arange(10))
    chosen = select_regions(regions, height=60, width=40)
    # 0.5 x 400 twice in their order, 0.9 x 160, 0.05 x 2400
    assert chosen.classes.tolist() == [0, 1, 8, 2]
    np.testing.assert_array_equal(
        chosen.boxes, [[10, 10, 30, 30], [0, 0, 20, 20], [20, 20, 24, 60], [0, 0, 40, 60]]
    )
    np.testing.assert_allclose(chosen.confidences, [0.5, 0.5, 0.9, 0.05])
    assert [part.dtype for part in chosen] == [np.float32, np.int64, np.float32]
    assert select_regions(regions, 60, 40, limit=3).classes.tolist() == [0, 1, 8]
    nothing = select_regions(ProposedRegions(*(part[3:8] for part in regions)), 60, 40)
    assert [part.shape for part in nothing] == [(0, 4), (0,), (0,)]


def test_many_equals_keep_their_order() -> None:
    boxes = np.tile([[0, 0, 10, 10], [0, 0, 20, 10], [5, 5, 15, 15]], (100, 1))
    chosen = select_regions(as_regions(boxes, None, np.arange(300)), 64, 64, limit=250)
    smaller = [number for number in range(300) if number % 3 != 1]
    assert chosen.classes.tolist() == [*range(1, 300, 3), *smaller[:150]]


def test_ground_truth_returns_what_is_known() -> None:
    known = [np.array([[1.5, 2, 30, 40], [0, 0, 64, 64]]), np.empty((0, 4))]
    result = load_proposer("ground_truth")(pictures((64, 64), (64, 64)), known, [4, 9])
    np.testing.assert_array_equal(result[0].boxes, known[0])
    assert result[0].confidences.tolist() == [1, 1] and result[0].classes.tolist() == [-1, -1]
    assert result[1].boxes.shape == (0, 4)
    with pytest.raises(SettingError, match=r"regions\.proposer.*no boxes of picture 9"):
        load_proposer("ground_truth")(pictures((64, 64), (64, 64)), [known[0], None], [4, 9])


def test_the_grid_covers_the_picture_once() -> None:
    for boxes, cells in ((1, 1), (4, 2), (15, 3), (16, 4)):
        proposer = load_proposer("grid", boxes=boxes)
        (result,) = proposer(pictures((60, 90)), [None], [0])
        assert len(result.boxes) == cells**2 and proposer.fingerprint["cells"] == cells
        covered = np.zeros((60, 90), dtype=int)
        for x0, y0, x1, y1 in result.boxes.round().astype(int):
            covered[y0:y1, x0:x1] += 1
        assert (covered == 1).all()
    np.testing.assert_allclose(
        load_proposer("grid", boxes=4)(pictures((60, 90)), [None], [0])[0].boxes,
        [[0, 0, 45, 30], [45, 0, 90, 30], [0, 30, 45, 60], [45, 30, 90, 60]],
    )


def test_random_boxes_depend_on_seed_and_row_alone() -> None:
    proposer = load_proposer("random", boxes=7, seed=3)
    many = proposer(pictures(*[(60, 90)] * 50), [None] * 50, range(50))
    (alone,) = load_proposer("random", boxes=7, seed=3)(pictures((60, 90)), [None], [31])
    np.testing.assert_array_equal(alone.boxes, many[31].boxes)
    boxes = np.stack([regions.boxes for regions in many])
    assert boxes.shape == (50, 7, 4) and len(np.unique(boxes[..., 0])) > 340
    assert (boxes >= 0).all() and (boxes[..., [0, 2]] <= 90).all() and (boxes[..., [1, 3]] <= 60).all()
    sides = (boxes[..., 2:] - boxes[..., :2]) / [90, 60]
    assert 0.15 <= sides.min() < 0.17 and 0.58 < sides.max() <= 0.6 + 1e-6
    (other,) = load_proposer("random", boxes=7, seed=4)(pictures((60, 90)), [None], [31])
    assert not np.isclose(other.boxes, alone.boxes).any()


def test_the_whole_image_proposes_nothing() -> None:
    result = load_proposer("whole_image")(pictures((8, 9), (60, 90)), [None, None], [0, 1])
    assert [len(regions.boxes) for regions in result] == [0, 0]


def test_fingerprints_tell_settings_apart() -> None:
    made = [
        load_proposer("ground_truth"),
        load_proposer("grid"),
        load_proposer("grid", boxes=9),
        load_proposer("random"),
        load_proposer("random", boxes=9),
        load_proposer("random", seed=1),
        load_proposer("whole_image"),
    ]
    assert len({repr(sorted(proposer.fingerprint.items())) for proposer in made}) == len(made)
    # what does not count: the grid knows no seed, and 17 boxes make the grid of 16
    assert load_proposer("grid", seed=5, boxes=17).fingerprint == load_proposer("grid").fingerprint


def test_settings_that_cannot_be() -> None:
    with pytest.raises(SettingError, match=r"regions\.proposer = 'yolov8': .*yolo, ground_truth"):
        load_proposer("yolov8")
    with pytest.raises(SettingError, match=r"regions\.boxes = 0"):
        load_proposer("grid", boxes=0)
