"""What retrieval_metrics costs, in time against the bare matrix product and in memory.

    python benchmarks/retrieval.py [--images 5000 --captions 25000 --dim 512 --rounds 5 --threads 1 --out
    FILE]

Every round times the product and the metrics one after the other, so that a busy machine slows all of them,
and the ratios are taken within a round. The product is that of unit embeddings in the same chunks, its blocks
thrown away. Time is CPU seconds of the process (all threads) and wall seconds; memory is the peak beyond what
the embeddings take, from Linux' own high-water mark (left out elsewhere).
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from workbench.evaluation import retrieval_metrics

LIMITS = {"recall, MRR, median rank": 2.0, "with average precision": 3.0}
CHUNK = 2048


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--captions", type=int, default=25_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the numbers to this JSON file")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)

    image, text, owner = embeddings(chosen.images, chosen.captions, chosen.dim)
    unit_image, unit_text = (torch.nn.functional.normalize(each) for each in (image, text))
    programs: dict[str, Callable[[], object]] = {
        "matrix product": lambda: product(unit_image, unit_text),
        "recall, MRR, median rank": lambda: retrieval_metrics(image, text, owner, average_precision=False),
        "with average precision": lambda: retrieval_metrics(image, text, owner),
    }
    for program in programs.values():
        program()  # first calls set up threads and kernels
    seconds = [{name: clock(program) for name, program in programs.items()} for _ in range(chosen.rounds)]
    rows = {}
    for name, program in programs.items():
        rows[name] = {
            "cpu_seconds": statistics.median(each[name][0] for each in seconds),
            "cpu_ratios": [each[name][0] / each["matrix product"][0] for each in seconds],
            "wall_ratios": [each[name][1] / each["matrix product"][1] for each in seconds],
            "limit": LIMITS.get(name),
            "extra_megabytes": extra_memory(program),
        }
    show(rows)
    if chosen.out:
        machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
        sizes = {key: value for key, value in vars(chosen).items() if key != "out"}
        chosen.out.write_text(json.dumps({"sizes": sizes, "machine": machine, "rows": rows}, indent=2) + "\n")


def embeddings(images: int, captions: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings that a middling model could have made: half of the captions find their image."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(images, dim, generator=generator)
    owner = torch.arange(captions) * images // captions
    return image, image[owner] + 6 * torch.randn(captions, dim, generator=generator), owner


def product(image: Tensor, text: Tensor) -> None:
    for rows in image.split(CHUNK):
        for columns in text.split(CHUNK):
            rows @ columns.T


def clock(program: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    program()
    return time.process_time() - cpu, time.perf_counter() - wall


def extra_memory(program: Callable[[], object]) -> float | None:
    """Megabytes (10^6 bytes) that the process grows by at most while `program` runs."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is in use now
    except OSError:
        return None
    before = high_water_mark()
    program()
    return (high_water_mark() - before) / 1e6


def high_water_mark() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def show(rows: dict[str, dict]) -> None:
    print(f"{'':26}{'cpu s':>8}{'x product (median, worst)':>28}{'wall x':>9}{'limit':>7}{'extra MB':>10}")
    for name, row in rows.items():
        ratios = f"{statistics.median(row['cpu_ratios']):.2f}, {max(row['cpu_ratios']):.2f}"
        wall, limit = statistics.median(row["wall_ratios"]), row["limit"] or ""
        memory = "" if row["extra_megabytes"] is None else f"{row['extra_megabytes']:.0f}"
        print(f"{name:26}{row['cpu_seconds']:8.2f}{ratios:>28}{wall:9.2f}{limit:>7}{memory:>10}")


if __name__ == "__main__":
    main()
