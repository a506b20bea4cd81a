"""What the losses cost: time and memory of every objective by batch, dense against a chunk of rows at a time.

    python benchmarks/losses.py [--batches N ... --dim N --chunk N --rounds N --threads N --out FOLDER]

Each is a forward and a backward pass over random embeddings of `dim` dimensions, student and teacher alike.
Every round times all forms of one objective one after the other, so that a busy machine slows all of them,
and ratios are taken within a round. Time is CPU seconds of the process (all threads). Memory is the peak
beyond what was in use before the call, gradients of the embeddings among it, from Linux' own high-water mark
(left out elsewhere), in a fresh process whose allocator gives freed blocks back at once: else it keeps holes
of up to 20 MB, now more, now fewer. Batches above 8,192 are measured in chunks only, and once.

Ratios are to the dense form; gradient distillation's to its `four gradients, bare`: the four matrices by
matrix products from unit embeddings, for student and teacher, and the way back through them.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from memory import growth
from torch import Tensor

from workbench.files import atomic_write, write_json
from workbench.objectives import DistillationLoss

CLIP_KD = ("task", "crd", "icl")
CHUNKED = [("task",), ("crd",), ("icl",), CLIP_KD]
DENSE_ONLY = [("fd",), ("mfd",), ("gd",), ("afd",), ("cosine",), ("embedding",), ("concepts",)]
LARGEST_DENSE = 8192
BARE = "four gradients, bare"
LIMITS = {
    "chunked time / dense": 0.7,
    "chunked memory / dense": 0.1,
    "gd / bare": 1.1,
    "chunked megabytes at 16384": 500,
}

Program = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1024, 4096, 16_384])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "1000000"  # for the processes that measure memory

    rows = []
    for batch in chosen.batches:
        for objectives in CHUNKED if batch > LARGEST_DENSE else CHUNKED + DENSE_ONLY:
            result = measure(objectives, (batch, chosen.dim, chosen.chunk), chosen.rounds)
            for row in result:
                print(line(row), flush=True)
            rows += result
    setting = {name: value for name, value in vars(chosen).items() if name != "out"}
    setting |= {"torch": torch.__version__, "limits": LIMITS}
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out / "losses.json", {"setting": setting, "rows": rows})
    with atomic_write(chosen.out / "losses.md", "w") as stream:
        stream.write(markdown(rows))


def measure(objectives: tuple[str, ...], sizes: tuple[int, int, int], rounds: int) -> list[dict]:
    """One row a form of the loss."""
    programs = make_programs(objectives, *sizes)
    reference = BARE if BARE in programs else "dense"
    if reference in programs:
        for program in programs.values():
            program()  # first calls set up kernels
    else:
        rounds = 1
    seconds = [{form: clock(program) for form, program in programs.items()} for _ in range(rounds)]
    rows = []
    for form in programs:
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            memory = fresh.apply(extra_memory, (objectives, form, sizes))
        rows.append(
            {
                "objectives": " + ".join(objectives),
                "form": form,
                "batch": sizes[0],
                "cpu_seconds": [item[form] for item in seconds],
                "time_ratios": [item[form] / item[reference] for item in seconds if reference in item],
                "extra_megabytes": memory,
            }
        )
    least = {row["form"]: row["extra_megabytes"] for row in rows}.get(reference)
    for row in rows:
        row["memory_ratio"] = row["extra_megabytes"] / least if least else None
    return rows


def make_programs(objectives: tuple[str, ...], batch: int, dim: int, chunk: int) -> dict[str, Program]:
    """The forms of a mixture of these objectives, each a forward and a backward pass."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, batch, dim, generator=generator) for _ in range(2))
    targets = {
        "masked_image": torch.randn(batch, dim, generator=generator).requires_grad_(),
        "text_target": torch.randn(batch, 576, generator=generator),
        "soft_labels": torch.randn(batch, 1024, generator=generator).softmax(1),
    }
    image, text = (item.clone().requires_grad_() for item in student)
    scale = torch.tensor(14.0, requires_grad=True)

    def passes(rows: int | None) -> Program:
        mixture = DistillationLoss(
            dict.fromkeys(objectives, 1.0), dim, dim, target_dim=576, concepts=1024, chunk=rows
        )

        def forward_and_backward() -> None:
            loss, _ = mixture(image, text, image, text, scale, *teacher, 50.0, **targets)
            loss.backward()
            for item in (image, text, scale, targets["masked_image"], *mixture.parameters()):
                item.grad = None

        return forward_and_backward

    programs: dict[str, Program] = {}
    if batch <= LARGEST_DENSE:
        programs["dense"] = passes(None)
    if objectives in CHUNKED:
        programs["chunked"] = passes(chunk)
    if objectives == ("gd",):
        programs[BARE] = lambda: bare_gradients(*student, *teacher)
    return programs


def bare_gradients(
    student_image: Tensor, student_text: Tensor, teacher_image: Tensor, teacher_text: Tensor
) -> None:
    """Forward and backward of the squared distance of the gradients of two InfoNCE, by matrix products."""
    normal = torch.nn.functional.normalize
    image, text = (normal(item).requires_grad_() for item in (student_image, student_text))
    sides = [(image, text, 14.0), (normal(teacher_image), normal(teacher_text), 50.0)]
    result = []
    for query, key, scale in sides:
        logits = scale * query @ key.T
        rows, columns = logits.softmax(1), logits.softmax(0)
        partner = torch.eye(len(query))
        rows, columns = rows - partner, (columns - partner).T
        result.append([rows @ key, rows.T @ query, columns @ query, columns.T @ key])
    factors = [scale / len(image) for *_, scale in sides]
    pairs = zip(*result, strict=True)
    sum(((factors[0] * ours - factors[1] * theirs) ** 2).sum() for ours, theirs in pairs).backward()


def clock(program: Program) -> float:
    began = time.process_time()
    program()
    return time.process_time() - began


def extra_memory(objectives: tuple[str, ...], form: str, sizes: tuple[int, int, int]) -> float | None:
    """Megabytes (10^6 bytes) that this process grows by at most while a program runs for the first time."""
    torch.set_num_threads(1)
    make_programs(objectives, 64, *sizes[1:])[form]()  # what torch needs for itself, once
    program = make_programs(objectives, *sizes)[form]
    return growth(program)


def cells(row: dict) -> tuple[str, str, str, str]:
    """Median seconds, their ratio, extra megabytes, their ratio."""
    time_ratio = f"{statistics.median(row['time_ratios']):.2f} x" if row["time_ratios"] else ""
    memory_ratio = f"{row['memory_ratio']:.2f} x" if row["memory_ratio"] else ""
    memory = "not measured" if row["extra_megabytes"] is None else f"{row['extra_megabytes']:.0f} MB"
    return f"{statistics.median(row['cpu_seconds']):.3g} s", time_ratio, memory, memory_ratio


def line(row: dict) -> str:
    numbers = "".join(f"{item:>14}" for item in cells(row))
    return f"{row['objectives']:18}{row['batch']:6}  {row['form']:20}{numbers}"


def markdown(rows: list[dict]) -> str:
    """The table: medians, and ratios to the dense form (gd: to its bare gradients)."""
    lines = [
        "| objectives | batch | form | time | ratio | extra memory | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        first = row["objectives"], f"{row['batch']:,}", row["form"]
        lines.append(f"| {' | '.join([*first, *cells(row)])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
