"""Run folders without any training: the files of a run, with curves and query results that look like real
ones.

`python -m tests.fake_runs FOLDER STEPS` trains for show: it appends records as a run in another process does.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench.files import signed, write_json
from workbench.recipe import Recipe
from workbench.runs.folder import write_recipe
from workbench.runs.records import sealed

WEIGHTS = {"task": 1.0, "crd": 1.0, "fd": 4.0, "icl": 1.0}


def write_run(
    folder: Path,
    recipe: str = "clip_kd_demo",
    seed: int = 0,
    *,
    steps: int = 120,
    skipped: Sequence[int] = (),
    state: str = "finished",
    splits: Mapping[str, float] | None = None,
    images: int = 60,
    data: str = "d" * 64,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """A run folder after `steps` steps; `splits` maps evaluated splits to how good the student is (log-rank
    shift)."""
    loaded = Recipe.load(recipe, {"seed": seed, **(overrides or {})})
    folder.mkdir(parents=True, exist_ok=True)
    write_recipe(folder, loaded)
    random = np.random.default_rng([seed, sum(recipe.encode())])
    weights = WEIGHTS if loaded.teacher else {"task": 1.0}
    with open(folder / "metrics.jsonl", "w", encoding="utf-8") as stream:
        for step in range(1, steps + 1):
            for record in records(step, steps, random, weights, bad=step in skipped):
                stream.write(sealed(record))
    write_status(folder, state, steps, steps, skipped_steps=len(skipped))
    write_json(
        folder / "versions.json",
        signed({"python": "3.12.1", "device": "cpu", "torch": "2.14.1", "open_clip_torch": "3.3.0"}),
    )
    facts = {"source": "scenes", "split": "train", "pairs": 8000, "captions": 40000, "fingerprint": "a" * 64}
    write_json(folder / "data.json", signed({"train": facts}))
    for split, shift in (splits or {}).items():
        write_evaluation(folder, split, shift, seed=seed, images=images, data=data)
    return folder


def records(
    step: int, total: int, random: np.random.Generator, weights: Mapping[str, float], bad: bool = False
) -> list[dict[str, Any]]:
    """What a run writes at one step: the step, and every tenth of the way a validation."""
    way = step / total
    scale, start = np.exp(-4 * way), {"task": 4.6, "crd": 2.1, "fd": 1.6, "icl": 4.2}
    terms = {
        name: float(start[name] * (0.25 + 0.75 * scale) + random.normal(0, 0.05 * start[name]))
        for name in weights
    }
    weighted = {f"weighted/{name}": weights[name] * value for name, value in terms.items()}
    result: dict[str, Any] = {
        "kind": "step",
        "step": step,
        "epoch": way * 10,
        "loss": None if bad else sum(weighted.values()),
        **terms,
        **weighted,
        "gradient_norm": None if bad else float(np.exp(random.normal(1.5 * scale, 0.25))),
        "scale": 14.3 + 20 * way,
        "samples_per_second": float(900 + random.normal(0, 30)),
        "lr": 1e-3 * min(1, step / (0.1 * total)) * 0.5 * (1 + np.cos(np.pi * way)),
        "seconds": 0.14,
    }
    if len(weights) > 1:
        result |= {"cosine_to_teacher_image": 0.9 - 0.8 * scale, "cosine_to_teacher_text": 0.8 - 0.7 * scale}
        if step % 10 == 1:
            result |= {f"gradient_share/{name}": 1 / len(weights) for name in weights}
    every = max(1, total // 10)
    if step % every:
        return [result]
    recall = {f"text_to_image_r{k}": min(1.0, (0.6 + 0.03 * k) * way) for k in (1, 5, 10)}
    recall |= {f"image_to_text_r{k}": min(1.0, (0.7 + 0.03 * k) * way) for k in (1, 5, 10)}
    return [result, {"kind": "validation", "step": step, "epoch": way * 10, **recall}]


def write_status(folder: Path, state: str, step: int, total: int, **more: Any) -> None:
    """status.json as training writes it."""
    left = {"seconds_left": (total - step) * 0.14 if state == "running" else None}
    now = time.time()
    write_json(
        folder / "status.json",
        {
            "state": state,
            "step": step,
            "total_steps": total,
            "message": "",
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
        | {"started": now - 0.14 * step, "updated": now, "rejected": {}, "skipped_steps": 0}
        | left
        | more,
    )


def write_evaluation(
    folder: Path, split: str, shift: float, *, seed: int = 0, images: int = 60, data: str = "d" * 64
) -> None:
    """evaluation/<split>.json and .npz: the same queries are hard for every student, a larger `shift` helps
    with all."""
    hardness = np.random.default_rng([images, sum(split.encode())])
    luck = np.random.default_rng([seed, int(1000 * (shift + 10))])
    image_of_text = np.repeat(np.arange(images), 5)
    chosen = np.arange(0, images, 2)

    def ranks(count: int) -> np.ndarray:
        depth = hardness.normal(1.6, 1.5, count) - shift + luck.normal(0, 0.3, count)
        return np.clip(np.exp(depth).astype(np.int64) + 1, 1, images)

    def right(count: int) -> np.ndarray:
        return hardness.normal(-0.3, 1, count) - shift + luck.normal(0, 0.3, count) < 0

    queries: dict[str, np.ndarray] = {"image_of_text": image_of_text}
    queries["t2i_ranks"], queries["i2t_ranks"] = ranks(len(image_of_text)), ranks(images)
    for key in ("zero_shot_names_correct", "zero_shot_categories_correct", "swap_correct"):
        queries[key], queries[f"{key}_image"] = right(len(chosen)), chosen
    scores: dict[str, float] = {}
    for direction, short in (("text_to_image", "t2i"), ("image_to_text", "i2t")):
        rank = queries[f"{short}_ranks"]
        scores |= {f"{direction}_r{k}": float((rank <= k).mean()) for k in (1, 5, 10)}
        scores |= {
            f"{direction}_mrr": float((1 / rank).mean()),
            f"{direction}_median_rank": float(np.median(rank)),
        }
    for key in ("names", "categories"):
        scores[f"zero_shot_{key}_top1"] = float(queries[f"zero_shot_{key}_correct"].mean())
    scores["swap_accuracy"] = float(queries["swap_correct"].mean())
    report = {
        "split": split,
        "data": data,
        "scores": scores,
        "images": images,
        "captions": len(image_of_text),
        "failed": {},
    }
    write_json(folder / "evaluation" / f"{split}.json", report)
    np.savez_compressed(folder / "evaluation" / f"{split}.npz", **queries)


def train_for_show(folder: Path, steps: int, pace: float = 0.05) -> None:
    """Append the records of a run, a step every `pace` seconds, until `steps` are done or the folder holds a
    file `stop`."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    Recipe.load("clip_kd_demo").save(folder / "recipe.yaml")
    step = 0
    while step < steps and not (folder / "stop").exists():
        step += 1
        with open(folder / "metrics.jsonl", "a", encoding="utf-8") as stream:
            for record in records(step, steps, random, WEIGHTS):
                stream.write(json.dumps(record) + "\n")
        write_status(folder, "running", step, steps)
        time.sleep(pace)
    write_status(folder, "finished", step, step)


if __name__ == "__main__":
    train_for_show(Path(sys.argv[1]), int(sys.argv[2]))
