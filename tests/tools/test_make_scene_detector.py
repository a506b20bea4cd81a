"""How the shipped detector is measured, and its script in small."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torchvision.ops import box_iou

from tools import make_scene_detector as script
from workbench.data.scenes.dataset import scenes
from workbench.models.regions import ultralytics_adapter
from workbench.models.regions.proposers import ProposedRegions, as_regions


def drawn(count: int, rng: np.random.Generator) -> tuple[list[ProposedRegions], list[np.ndarray]]:
    """Things, and boxes that find some of them, with wrong ones and second ones between."""
    result, truth = [], []
    for number in range(count):
        corner = rng.uniform(0, 40, (number % 4, 2))
        things = np.hstack([corner, corner + rng.uniform(8, 24, corner.shape)])
        near = np.repeat(things, 2, axis=0) + rng.normal(0, 1.5, (2 * len(things), 4))
        wrong = rng.uniform(0, 30, (2, 4)) + np.array([0, 0, 30, 30])
        boxes = np.concatenate([near[rng.random(len(near)) < 0.7], wrong])
        confidences = rng.random(len(boxes))
        order = np.argsort(-confidences)
        result.append(as_regions(boxes[order], confidences[order]))
        truth.append(things.astype(np.float32))
    return result, truth


def test_overlaps_equal_torchvisions() -> None:
    rng = np.random.default_rng(0)
    boxes, things = (rng.uniform(0, 30, (n, 4)) + np.array([0, 0, 20, 20]) for n in (7, 5))
    expected = box_iou(torch.from_numpy(boxes), torch.from_numpy(things)).numpy()
    np.testing.assert_allclose(script.intersection_over_union(boxes, things), expected)
    assert script.intersection_over_union(np.empty((0, 4)), things).shape == (0, 5)


def test_average_precision_by_hand() -> None:
    things = np.array([[0, 0, 10, 10], [20, 20, 40, 40]], dtype=np.float32)
    right = as_regions(things, np.array([0.9, 0.8]))
    assert script.average_precision([right], [things]) == 1
    assert script.average_precision([as_regions(np.empty((0, 4)))], [things]) == 0
    # One thing found first, then it again, which is wrong: recall stays at 1/2, reached with precision 1.
    twice = as_regions(things[[0, 0]], np.array([0.9, 0.8]))
    assert script.average_precision([twice], [things]) == pytest.approx(51 / 101)
    # A wrong box first: precision 1/2, then 2/3, the higher of which counts for both.
    late = as_regions(np.concatenate([[[60, 60, 70, 70]], things]), np.array([0.9, 0.8, 0.7]))
    assert script.average_precision([late], [things]) == pytest.approx(2 / 3)
    # Confidence counts across pictures.
    nothing = np.empty((0, 4), dtype=np.float32)
    elsewhere = as_regions(things[:1], np.array([0.95]))
    assert script.average_precision([right, elsewhere], [things, nothing]) == pytest.approx(2 / 3)


def test_average_precision_is_close_to_ultralytics() -> None:
    """Theirs integrates the same curve, so the two differ by little."""
    result, truth = drawn(200, np.random.default_rng(1))
    ultralytics_adapter.ultralytics()
    from ultralytics.utils.metrics import ap_per_class

    hits = []
    for regions, things in zip(result, truth, strict=True):
        free = set(range(len(things)))
        for box in torch.from_numpy(regions.boxes):
            overlaps = {thing: float(box_iou(box[None], torch.from_numpy(things[[thing]]))) for thing in free}
            best = max(overlaps, key=overlaps.__getitem__, default=-1)
            hits.append(best >= 0 and overlaps[best] >= 0.5)
            free -= {best} if hits[-1] else set()
    confidences = np.concatenate([regions.confidences for regions in result])
    classes = np.zeros(len(hits)), np.zeros(sum(map(len, truth)))
    theirs = ap_per_class(np.array(hits)[:, None], confidences, *classes)[5][0, 0]
    ours = script.average_precision(result, truth)
    assert 0.3 < ours < 0.8 and ours == pytest.approx(theirs, abs=0.01)


def test_the_script_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(script, "MEASURED", {"test, 64 px": ("test", 10, 64)})
    threads = torch.get_num_threads()
    weights = script.train(tmp_path / "run", epochs=1, scale=0.004, architecture="yolo11n")
    assert torch.get_num_threads() == threads and "epoch 1 of 1" in capsys.readouterr().out
    # The boxes that it learns from are those of the scenes.
    pairs = scenes("train", 24, 64, 11)
    for row in (0, 23):
        lines = (
            (tmp_path / "run" / "data" / "labels" / "train" / f"64-{row:05d}.txt")
            .read_text()
            .split("\n")[:-1]
        )
        numbers = np.array([line.split() for line in lines], dtype=float)
        x, y, width, height = numbers[:, 1:].T * 64
        boxes = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
        np.testing.assert_allclose(boxes, pairs.table["boxes"][row].as_py(), atol=1e-3)
    assert len(list((tmp_path / "run" / "data" / "images" / "train").glob("*.png"))) == 40

    target = tmp_path / "detector.safetensors"
    measured = script.package(weights, target, "yolo11n")
    assert set(measured["test, 64 px"]) == {"mAP50", "recall", "precision", "without_box"}
    assert target.stat().st_size <= 8e6
    with safe_open(target, framework="pt") as file:
        facts = json.loads(file.metadata()["detector"])
    assert facts == {"architecture": "yolo11n", "names": ["thing"], "image_size": 128, "measured": measured}
