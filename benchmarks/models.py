"""What a student saves: parameters, operations, latency and memory of students against their teachers.

    python benchmarks/models.py [--rounds N --threads N --out FOLDER]

Students are the shipped configurations, at their true architecture with random weights: those of the demo
against demo_teacher, the others against ViT-B-16. Operations are those of matrix products and convolutions, a
multiplication and an addition each, of one picture and one caption. Every round times every model once, in
another order each time, and ratios to the teacher are taken within a round; time is CPU seconds of the
process (all threads), which a busy machine stretches less than the clock. Memory is the weights and the peak
of a pass over 32 pictures beyond what was in use before it, in a fresh process whose allocator gives freed
blocks back at once, from Linux' own high-water mark (left out elsewhere).
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from memory import growth
from torch import Tensor

from workbench.evaluation.efficiency import CAPTION, model_efficiency
from workbench.files import atomic_write, write_json
from workbench.models.dual_encoder import DualEncoder
from workbench.models.loading import load_dual_encoder, shipped_models

BATCHES = (1, 32)
DEMO_TEACHER, TEACHER = "demo_teacher", "ViT-B-16"
TIMED = [f"{batch} {side}" for side in ("pictures", "captions") for batch in BATCHES]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "1000000"  # for the processes that measure memory

    rows = []
    for teacher, students in groups().items():
        rows += measure(teacher, students, chosen.rounds, chosen.threads)
        print(markdown(rows), flush=True)
    setting = {"rounds": chosen.rounds, "threads": chosen.threads, "torch": torch.__version__}
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out / "models.json", {"setting": setting, "rows": rows})
    with atomic_write(chosen.out / "models.md", "w") as stream:
        stream.write(markdown(rows))


def groups() -> dict[str, list[str]]:
    """The students of each teacher."""
    students = [name for name in shipped_models() if name != DEMO_TEACHER]
    return {
        DEMO_TEACHER: [name for name in students if name.startswith("demo")],
        TEACHER: [name for name in students if not name.startswith("demo")],
    }


def measure(teacher: str, students: list[str], rounds: int, threads: int) -> list[dict]:
    """One row a model, the teacher's first."""
    models = {name: load_dual_encoder(name).eval() for name in (teacher, *students)}
    programs = {name: make_programs(model) for name, model in models.items()}
    seconds: list[dict[str, dict[str, float]]] = []
    for turn in range(rounds + 1):
        # Every round in another order: who comes after whom must not favour anybody.
        order = np.random.default_rng(turn).permutation(list(models))
        result = {name: {what: clock(program) for what, program in programs[name].items()} for name in order}
        if turn:  # the first round warms up
            seconds.append(result)
    rows = []
    for name, model in models.items():
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            peak = fresh.apply(extra_memory, (name, threads))
        counted = model_efficiency(model, CAPTION)
        weights = sum(item.nbytes for item in model.state_dict().values()) / 1e6
        rows.append(
            {
                "model": name,
                "teacher": teacher,
                "parameters": {
                    "image": counted.image_parameters,
                    "all": counted.parameters,
                    "text": counted.text_parameters,
                },
                "operations": {"image": counted.image_operations, "text": counted.text_operations},
                "cpu_seconds": {what: [item[name][what] for item in seconds] for what in TIMED},
                "time_ratios": {
                    what: [item[name][what] / item[teacher][what] for item in seconds] for what in TIMED
                },
                "megabytes": None if peak is None else weights + peak,
            }
        )
    return rows


def make_programs(model: DualEncoder) -> dict[str, Callable[[], object]]:
    def embed(encode: Callable[[Tensor], Tensor], given: Tensor) -> Callable[[], object]:
        @torch.no_grad()
        def program() -> None:
            encode(given)

        return program

    programs = {}
    for batch in BATCHES:
        images, tokens = inputs(model, batch)
        programs[f"{batch} pictures"] = embed(model.encode_image, images)
        programs[f"{batch} captions"] = embed(model.encode_text, tokens)
    return programs


def inputs(model: DualEncoder, batch: int) -> tuple[Tensor, Tensor]:
    images = torch.randint(0, 256, (batch, 3, *model.transform.size), dtype=torch.uint8)
    return images, model.tokenize([CAPTION] * batch)


def clock(program: Callable[[], object]) -> float:
    began = time.process_time()
    program()
    return time.process_time() - began


def extra_memory(name: str, threads: int) -> float | None:
    """Megabytes (10^6 bytes) that this process grows by at most while the model sees 32 pictures."""
    torch.set_num_threads(threads)
    programs = make_programs(load_dual_encoder(name).eval())
    programs["1 pictures"]()  # what torch needs for itself, once
    return growth(programs["32 pictures"])


def markdown(rows: list[dict]) -> str:
    """The table: medians, and each student's share of what its teacher takes."""
    lines = [
        "| model | parameters | operations | 1 picture | 32 pictures | 1 caption | 32 captions | memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        teacher = next(item for item in rows if item["model"] == row["teacher"])
        total = sum(row["operations"].values())
        cells = [
            (row["parameters"]["all"] / 1e6, "M", row["parameters"]["all"] / teacher["parameters"]["all"]),
            (total / 1e9, "G", total / sum(teacher["operations"].values())),
        ]
        for what in TIMED:
            milliseconds = 1000 * statistics.median(row["cpu_seconds"][what])
            cells.append((milliseconds, "ms", statistics.median(row["time_ratios"][what])))
        if row["megabytes"] is not None:
            cells.append((row["megabytes"], "MB", row["megabytes"] / teacher["megabytes"]))
        shown = [
            f"{value:,.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}" for value, unit, _ in cells
        ]
        if row is not teacher:
            shown = [f"{item} ({ratio:.2f} x)" for item, (*_, ratio) in zip(shown, cells, strict=True)]
        shown += ["not measured"] * (row["megabytes"] is None)
        lines.append(f"| {' | '.join([row['model'], *shown])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
