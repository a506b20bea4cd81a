"""What a busy neighbour costs: losses in chunks and retrieval, quiet and beside processes that use the same
cores.

    python benchmarks/shared_cores.py [--batch N --dim N --chunk N --images N --captions N --rounds N
                                       --threads N --neighbours N --out FOLDER]

A neighbour does matrix products on one thread without end. Every round times all programs one after the
other, first quiet (the neighbours stopped), then beside them, and ratios are taken within a round: the
chunked mixture to the dense one, retrieval to the bare matrix product of unit embeddings. Time is wall
seconds; `least` takes each program's fastest round, which is what it costs where everybody else on the
machine was quiet too.
"""

import argparse
import contextlib
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from losses import CLIP_KD
from losses import make_programs as loss_programs
from retrieval import make_programs as retrieval_programs

from workbench.files import atomic_write, write_json

PEERS = {"chunked": "dense", "recall, MRR, median rank": "matrix product"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--captions", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--neighbours", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)

    programs = loss_programs(CLIP_KD, chosen.batch, chosen.dim, chosen.chunk)
    retrieval = retrieval_programs("middling", (chosen.images, chosen.captions, chosen.dim))
    programs |= {name: retrieval[name] for name in ("matrix product", "recall, MRR, median rank")}
    for program in programs.values():
        program()  # first calls set up threads and kernels
    seconds: dict[str, dict[str, list[float]]] = {
        around: {name: [] for name in programs} for around in ("quiet", "busy")
    }
    with neighbours(chosen.neighbours) as processes:
        for _ in range(chosen.rounds):
            for around, times in seconds.items():
                send(processes, signal.SIGCONT if around == "busy" else signal.SIGSTOP)
                for name, program in programs.items():
                    began = time.perf_counter()
                    program()
                    times[name].append(time.perf_counter() - began)
    rows = [row(around, name, times) for around, times in seconds.items() for name in PEERS]
    print(markdown(rows))
    setting = {name: value for name, value in vars(chosen).items() if name != "out"}
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_json(
        chosen.out / "shared_cores.json", {"setting": setting | {"torch": torch.__version__}, "rows": rows}
    )
    with atomic_write(chosen.out / "shared_cores.md", "w") as stream:
        stream.write(markdown(rows))


@contextlib.contextmanager
def neighbours(count: int) -> Iterator[list[multiprocessing.process.BaseProcess]]:
    """Processes that use a core each until the block ends."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=multiply, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.join()


def multiply() -> None:
    torch.set_num_threads(1)
    matrix = torch.randn(512, 512)
    while True:
        matrix = torch.nn.functional.normalize(matrix @ matrix)


def send(processes: list[multiprocessing.process.BaseProcess], number: signal.Signals) -> None:
    for process in processes:
        assert process.pid is not None
        os.kill(process.pid, number)


def row(around: str, name: str, times: dict[str, list[float]]) -> dict:
    peer = PEERS[name]
    ratios = [ours / theirs for ours, theirs in zip(times[name], times[peer], strict=True)]
    return {
        "around": around,
        "program": name,
        "peer": peer,
        "seconds": times[name],
        "peer_seconds": times[peer],
        "ratios": ratios,
        "least": min(times[name]) / min(times[peer]),
    }


def markdown(rows: list[dict]) -> str:
    """The table: medians over rounds."""
    lines = [
        "| beside | program | time | compared to | ratio | worst | least |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in rows:
        beside = "a busy process" if entry["around"] == "busy" else "nothing"
        ratios = f"{statistics.median(entry['ratios']):.2f} x | {max(entry['ratios']):.2f} x"
        time_taken = f"{statistics.median(entry['seconds']):.3g} s"
        lines.append(
            f"| {beside} | {entry['program']} | {time_taken} "
            f"| {entry['peer']} | {ratios} | {entry['least']:.2f} x |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
