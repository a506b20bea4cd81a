"""What retrieval_metrics costs: time against the bare matrix product, and memory.

    python benchmarks/retrieval.py [--images N --captions N --dim N --rounds N --threads N --out FOLDER]

Every round times the product and the metrics one after the other, so that a busy machine slows all of them,
and the ratios are taken within a round. The product is that of unit embeddings in the same chunks, its blocks
thrown away. Time is CPU seconds of the process (all threads) and wall seconds. Memory is the peak beyond what
was in use before the call, in a fresh process, from Linux' own high-water mark (left out elsewhere).

`middling` embeddings find half of their images, `untrained` ones none: these have the most close calls.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from memory import growth
from torch import Tensor

from workbench.evaluation import retrieval_metrics
from workbench.files import atomic_write, write_json

CHUNK = 2048
LIMITS = {"recall, MRR, median rank": 2.0, "with average precision": 3.0}
MEMORY_LIMIT = 150  # MB

Program = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--captions", type=int, default=25_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)

    sizes = chosen.images, chosen.captions, chosen.dim
    rows = [row for kind in ("middling", "untrained") for row in measure(kind, sizes, chosen.rounds)]
    show(rows)
    setting = {name: value for name, value in vars(chosen).items() if name != "out"}
    setting |= {"torch": torch.__version__, "memory_limit": MEMORY_LIMIT}
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_json(chosen.out / "retrieval.json", {"setting": setting, "rows": rows})
    with atomic_write(chosen.out / "retrieval.md", "w") as stream:
        stream.write(markdown(rows))


def measure(kind: str, sizes: tuple[int, int, int], rounds: int) -> list[dict]:
    programs = make_programs(kind, sizes)
    for program in programs.values():
        program()  # first calls set up threads and kernels
    seconds = [{name: clock(program) for name, program in programs.items()} for _ in range(rounds)]
    floor = [item["matrix product"] for item in seconds]
    rows = []
    for name in programs:
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            memory = fresh.apply(extra_memory, (kind, sizes, name))
        rows.append(
            {
                "embeddings": kind,
                "program": name,
                "cpu_seconds": [item[name][0] for item in seconds],
                "cpu_ratios": [item[name][0] / cpu for item, (cpu, _) in zip(seconds, floor, strict=True)],
                "wall_ratios": [item[name][1] / wall for item, (_, wall) in zip(seconds, floor, strict=True)],
                "limit": LIMITS.get(name),
                "extra_megabytes": memory,
            }
        )
    return rows


def make_programs(kind: str, sizes: tuple[int, int, int]) -> dict[str, Program]:
    images, captions, dim = sizes
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(images, dim, generator=generator)
    owner = torch.arange(captions) * images // captions
    text = torch.randn(captions, dim, generator=generator)
    if kind == "middling":
        text += image[owner] / 6
    unit_image, unit_text = (torch.nn.functional.normalize(item) for item in (image, text))
    return {
        "matrix product": lambda: product(unit_image, unit_text),
        "recall, MRR, median rank": lambda: retrieval_metrics(image, text, owner, average_precision=False),
        "with average precision": lambda: retrieval_metrics(image, text, owner),
    }


def product(image: Tensor, text: Tensor) -> None:
    for rows in image.split(CHUNK):
        for columns in text.split(CHUNK):
            _ = rows @ columns.T


def clock(program: Program) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    program()
    return time.process_time() - cpu, time.perf_counter() - wall


def extra_memory(kind: str, sizes: tuple[int, int, int], name: str) -> float | None:
    """Megabytes (10^6 bytes) that this process grows by at most while a program runs for the first time."""
    make_programs(kind, (100, 500, sizes[2]))[name]()  # what torch needs for itself, once
    program = make_programs(kind, sizes)[name]
    return growth(program)


def show(rows: list[dict]) -> None:
    numbers = f"{'cpu s':>8}{'x product':>11}{'wall x':>8}{'limit':>7}{'extra MB':>10}"
    print(f"{'embeddings':12}{'program':26}{numbers}")
    for row in rows:
        cpu, ratio, wall = (
            statistics.median(row[key]) for key in ("cpu_seconds", "cpu_ratios", "wall_ratios")
        )
        memory = "?" if row["extra_megabytes"] is None else f"{row['extra_megabytes']:.0f}"
        line = f"{row['embeddings']:12}{row['program']:26}{cpu:8.2f}{ratio:11.2f}{wall:8.2f}"
        print(f"{line}{row['limit'] or '':>7}{memory:>10}")
    print(f"medians of {len(rows[0]['cpu_seconds'])} rounds; limit of memory {MEMORY_LIMIT} MB")


def markdown(rows: list[dict]) -> str:
    """The table: medians, times as multiples of the bare matrix product's."""
    lines = ["| embeddings | program | wall time x product | extra memory |", "|---|---|---|---|"]
    for row in rows:
        wall = statistics.median(row["wall_ratios"])
        memory = "not measured" if row["extra_megabytes"] is None else f"{row['extra_megabytes']:.0f} MB"
        lines.append(f"| {row['embeddings']} | {row['program']} | {wall:.2f} x | {memory} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
