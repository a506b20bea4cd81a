"""Trains the shipped scene detector: where things are in scenes of the embedded dataset, whatever they are.

    python tools/make_scene_detector.py FOLDER [--architecture yolov8n] [--epochs 18] [--out FILE]

The architecture from random weights with ultralytics' trainer, one class, in a new FOLDER; then measures it
on held-out scenes and artwork and writes it with the numbers to FILE, by default the shipped one in
workbench/assets. About an hour on one core.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from workbench.data.scenes.dataset import scenes
from workbench.models.package_weights import ASSETS
from workbench.models.regions import ultralytics_adapter
from workbench.models.regions.detector import load_proposer, save_detector
from workbench.models.regions.proposers import ProposedRegions

ARCHITECTURE = "yolov8n"
IMAGE_SIZE = 128  # that the network sees
EPOCHS = 18
# (scenes, pixels a side, seed) of the split `train`: most as small as the demo has them.
TRAINED = ((6000, 64, 11), (1500, 96, 12), (1500, 128, 13), (1000, 224, 14))
WATCHED = (300, 64, 11)  # of the split `val`
MEASURED = {
    "test, 64 px": ("test", 1000, 64),
    "test, 128 px": ("test", 500, 128),
    "test, 224 px": ("test", 500, 224),
    "test_style, 64 px": ("test_style", 1000, 64),
    "test_concepts, 64 px": ("test_concepts", 500, 64),
}


def train(folder: Path, epochs: int = EPOCHS, scale: float = 1.0, architecture: str = ARCHITECTURE) -> Path:
    """Train in the new `folder` on `scale` times as many scenes; gives the file of the best weights."""
    folder.mkdir(parents=True)
    data = _write_data(folder / "data", scale)
    ultralytics_adapter.ultralytics()
    from ultralytics.models.yolo.detect import DetectionTrainer

    with ultralytics_adapter.process_settings_kept():
        trainer = DetectionTrainer(
            overrides={
                "model": f"{architecture}.yaml", "pretrained": False, "data": str(data), "imgsz": IMAGE_SIZE,
                "epochs": epochs, "batch": 16, "nbs": 16, "optimizer": "AdamW", "lr0": 0.002, "lrf": 0.01,
                "momentum": 0.9, "cos_lr": True, "warmup_epochs": 0.5, "warmup_bias_lr": 0.0,
                "mosaic": 0.5, "close_mosaic": max(1, epochs // 4), "scale": 0.3, "amp": False,
                "device": "cpu", "cache": "ram", "plots": False, "seed": 0,
                "project": str(folder.resolve()), "name": "run", "exist_ok": True,
            }
        )  # fmt: skip
        trainer.add_callback("on_fit_epoch_end", _say)
        trainer.train()
    return Path(trainer.best)


def average_precision(
    proposed: Sequence[ProposedRegions], truth: Sequence[Float[np.ndarray, "_ 4"]]
) -> float:
    """Average precision of boxes at an intersection over union of 0.5, one class, as COCO counts it.

    The mean of the highest precision still reached at 101 levels of recall. Boxes are taken by confidence
    over all pictures; each goes to the best thing of its picture that none before it took.
    """
    hits = []
    for regions, things in zip(proposed, truth, strict=True):
        overlaps = intersection_over_union(regions.boxes, things)
        free = np.ones(len(things), dtype=bool)
        for box, confidence in enumerate(regions.confidences):
            best = int(np.argmax(np.where(free, overlaps[box], -1))) if free.any() else -1
            hit = best >= 0 and overlaps[box, best] >= 0.5
            if hit:
                free[best] = False
            hits.append((-float(confidence), hit))
    hit_in_order = np.array([hit for _, hit in sorted(hits, key=lambda pair: pair[0])], dtype=float)
    right = np.cumsum(hit_in_order)
    recall = right / sum(map(len, truth))
    precision = right / np.arange(1, len(right) + 1)
    highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(highest[np.searchsorted(recall, np.linspace(0, 1, 101))].mean())


def intersection_over_union(
    boxes: Float[np.ndarray, "boxes 4"], things: Float[np.ndarray, "things 4"]
) -> Float[np.ndarray, "boxes things"]:
    """The share that two boxes have in common of what they cover together."""
    low = np.maximum(boxes[:, None, :2], things[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], things[None, :, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    areas = [(some[:, 2:] - some[:, :2]).prod(-1) for some in (boxes, things)]
    return np.asarray(common / (areas[0][:, None] + areas[1][None] - common))


def measure(weights: str, split: str, count: int, image_size: int) -> dict[str, float]:
    """Average precision, and what the default confidence gives: recall, precision, pictures without a box."""
    pairs = scenes(split, count, image_size)
    pictures = [pairs.image(row) for row in range(count)]
    truth = [np.array(boxes, dtype=np.float32) for boxes in pairs.table["boxes"].to_pylist()]
    no_boxes: list[None] = [None] * count
    every = load_proposer("yolo", weights=weights, confidence=0.001)(pictures, no_boxes, range(count))
    usual = load_proposer("yolo", weights=weights)(pictures, no_boxes, range(count))
    hits = [
        intersection_over_union(regions.boxes, things) >= 0.5
        for regions, things in zip(usual, truth, strict=True)
    ]
    return {
        "mAP50": round(average_precision(every, truth), 4),
        "recall": round(sum(int(hit.any(0).sum()) for hit in hits) / sum(map(len, truth)), 4),
        "precision": round(
            sum(int(hit.any(1).sum()) for hit in hits) / max(1, sum(len(hit) for hit in hits)), 4
        ),
        "without_box": round(sum(not len(hit) for hit in hits) / count, 4),
    }


def package(weights: Path, target: Path, architecture: str = ARCHITECTURE) -> dict[str, Any]:
    """Write the trained weights to `target`, then measure that file and write the numbers into it."""
    model, _ = ultralytics_adapter.load(weights)
    save_detector(target, model, architecture, IMAGE_SIZE, {})
    measured = {name: measure(str(target), *which) for name, which in MEASURED.items()}
    save_detector(target, model, architecture, IMAGE_SIZE, measured)
    return measured


def _write_data(folder: Path, scale: float) -> Path:
    """The scenes as PNG files with their boxes as ultralytics' text files; gives the file that names them."""
    wanted = [("train", *some) for some in TRAINED] + [("val", *WATCHED)]
    for split, count, image_size, seed in wanted:
        pictures, labels = folder / "images" / split, folder / "labels" / split
        for made in (pictures, labels):
            made.mkdir(parents=True, exist_ok=True)
        pairs = scenes(split, round(count * scale), image_size, seed)
        for row, boxes in enumerate(pairs.table["boxes"].to_pylist()):
            name = f"{image_size}-{row:05d}"
            Image.fromarray(pairs.image(row).permute(1, 2, 0).numpy()).save(pictures / f"{name}.png")
            edges = np.array(boxes) / image_size
            centres, sides = (edges[:, :2] + edges[:, 2:]) / 2, edges[:, 2:] - edges[:, :2]
            lines = [f"0 {x:.6f} {y:.6f} {w:.6f} {h:.6f}\n" for x, y, w, h in np.hstack([centres, sides])]
            (labels / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    data = folder / "data.yaml"
    data.write_text(
        f"path: '{folder.resolve()}'\ntrain: images/train\nval: images/val\nnames: [thing]\n",
        encoding="utf-8",
    )
    return data


def _say(trainer: Any) -> None:
    if trainer.epoch >= trainer.epochs:  # once more at the end, for the best weights
        return
    reached = trainer.metrics.get("metrics/mAP50(B)", float("nan"))
    print(f"epoch {trainer.epoch + 1} of {trainer.epochs}: mAP50 {reached:.3f} on val", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--architecture", default=ARCHITECTURE)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=ASSETS / "scene_detector.safetensors")
    chosen = parser.parse_args()
    best = train(chosen.folder, chosen.epochs, architecture=chosen.architecture)
    for name, numbers in package(best, chosen.out, chosen.architecture).items():
        print(f"{name}: {numbers}")
    print(f"{chosen.out}: {chosen.out.stat().st_size / 1e6:.1f} MB")
