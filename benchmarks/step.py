"""What a cached teacher costs a training step: student alone, the same with cached targets of one teacher and
of two, the same with the teacher online.

    python benchmarks/step.py [--size real|demo] [--rounds 7] [--out benchmarks/results]

`real` is a ViT-B/32 student at 224 px, batch 16, random weights, with targets of ViT-B/16's width; `demo` is
the demo recipes' pair at batch 128. The variants take turns in one process; ratios are taken round by round,
so a machine that slows down slows them alike.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from workbench.files import atomic_write, read_json, write_json
from workbench.models.loading import load_dual_encoder
from workbench.objectives import DistillationLoss
from workbench.objectives.ensemble import Member
from workbench.targets.store_writer import Column, fill
from workbench.training.learner import BatchTargets, Inputs, Learner, backward
from workbench.training.optimisation import parameter_groups

SIZES = {
    "real": ("ViT-B-32", "ViT-B-16", None, 16),
    "demo": ("demo_student_plain", "demo_teacher", "demo_teacher", 128),
}
DISTILLED = {"task": 1.0, "crd": 1.0, "fd": 4.0, "icl": 1.0}
ROWS = 4096  # of the store that targets are looked up in


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    student_name, teacher_name, weights, batch = SIZES[arguments.size]
    teacher = load_dual_encoder(teacher_name, weights).eval()
    rng = np.random.default_rng(0)

    def random_rows(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        return rng.standard_normal((rows.stop - rows.start, teacher.dim)), {}

    with tempfile.TemporaryDirectory() as folder:
        columns = {name: Column((ROWS, teacher.dim), "float16", random_rows) for name in ("image", "text")}
        stores = [
            fill(Path(folder) / name, {"benchmark": name}, columns, batch=ROWS)
            for name in ("first", "second")
        ]
        steps = {}
        for name, mixture_weights in {
            "alone": {"task": 1.0},
            "cached": DISTILLED,
            "two teachers": DISTILLED,
            "online": DISTILLED,
        }.items():
            student = load_dual_encoder(student_name)
            members = [Member(teacher.dim)] * (2 if name == "two teachers" else 1)
            learner = Learner(student, DistillationLoss(mixture_weights, student.dim, members))
            steps[name] = (learner, torch.optim.AdamW(parameter_groups(learner, 0.1, {}), lr=1e-5))
        size, theirs = (model.transform.size for model in (student, teacher))
        images = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)
        enlarged = torch.randint(0, 256, (batch, 3, *theirs), dtype=torch.uint8)
        captions = ["a small red apple left of a large green tree on a blue background"] * batch
        tokens, their_tokens = student.tokenize(captions), teacher.tokenize(captions)

        def targets(name: str) -> BatchTargets:
            if name == "alone":
                return BatchTargets()
            if name != "online":
                rows = rng.integers(ROWS, size=batch)
                asked = stores if name == "two teachers" else stores[:1]
                sides = (
                    np.concatenate([store.rows(side, rows) for store in asked], axis=1)
                    for side in ("image", "text")
                )
                scales = (50.0,) * len(asked)
                return BatchTargets(
                    *(torch.from_numpy(side).float() for side in sides), scales if scales[1:] else 50.0
                )
            with torch.no_grad():
                return BatchTargets(teacher.encode_image(enlarged), teacher.encode_text(their_tokens), 50.0)

        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for turn in range(arguments.rounds + 1):
            # Every round in another order: who comes after whom must not favour anybody.
            for name in np.random.default_rng(turn).permutation(list(steps)):
                learner, optimiser = steps[name]
                learner.train()
                began = time.perf_counter()
                optimiser.zero_grad()
                backward(learner, learner.mixture, Inputs(images, tokens), targets(name), None, seed=turn)
                optimiser.step()
                if turn:  # the first round warms up
                    seconds[name].append(time.perf_counter() - began)

    ratios = {
        name: statistics.median(
            value / alone for value, alone in zip(seconds[name], seconds["alone"], strict=True)
        )
        for name in ("cached", "two teachers", "online")
    }
    extra = [two / one for two, one in zip(seconds["two teachers"], seconds["cached"], strict=True)]
    result = {
        "size": arguments.size,
        "student": student_name,
        "teacher": teacher_name,
        "batch": batch,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "ratio_to_alone": ratios,
        "spread_of_ratio": {
            name: [f(v / a for v, a in zip(seconds[name], seconds["alone"], strict=True)) for f in (min, max)]
            for name in ratios
        },
        "two_teachers_to_one": {"median": statistics.median(extra), "from": min(extra), "to": max(extra)},
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out / f"step_{arguments.size}.json", result)
    with atomic_write(arguments.out / "step.md", "w") as stream:
        stream.write(markdown([read_json(path) for path in sorted(arguments.out.glob("step_*.json"))]))
    print(f"{student_name}, batch {batch}, {arguments.threads} threads, median of {arguments.rounds} rounds")
    for name in seconds:
        ratio = f"{ratios[name]:.3f} x alone" if name in ratios else ""
        print(f"    {name:8} {result['seconds'][name]:8.3f} s a step  {ratio}")


def markdown(results: list[dict]) -> str:
    """The table: the median step, and the median of its ratio to the same round's step alone."""
    lines = [
        "| student | batch | alone | with cached targets | with the teacher online |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        ratios = [f"{result['ratio_to_alone'][name]:.2f} x" for name in ("cached", "online")]
        alone = f"{result['seconds']['alone']:.2f} s"
        lines.append(f"| {result['student']} | {result['batch']} | {alone} | {' | '.join(ratios)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
