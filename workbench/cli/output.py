"""Helpers of all commands: the option --set, printing of tables, logs and outcomes, and signals."""

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from workbench.runs.run import Run
    from workbench.training.launch import Job


Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a setting, e.g. training.lr=1e-4. Repeatable."),
]


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[list[int]]:
    """Convert SIGTERM to an interrupt, so that clean-up code runs. The list holds the received signal."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


def follow(job: "Job") -> "Run":
    """Print the log of a job until it ends. An interrupt makes the job save and stop."""
    printed = 0
    try:
        while True:
            running, log = job.running, job.log
            print(log[printed:], end="", flush=True)
            printed = len(log)
            if not running:
                return job.run
            time.sleep(0.5)
    except KeyboardInterrupt:
        job.stop()
        print(job.log[printed:], end="", flush=True)
        print(job.run)
        raise


def exit_code(run: "Run") -> int:
    """The exit code after a training: 0, 1 for a failure, or 128 plus the number of the stop signal."""
    state, message = run.status.get("state"), str(run.status.get("message"))
    if state == "interrupted":
        return 128 + (signal.SIGTERM if "SIGTERM" in message else signal.SIGINT)
    return 0 if state == "finished" else 1


def say_outcome(manifest: dict[str, Any]) -> None:
    """Print the outcome and path of an executed notebook, and its error to standard error."""
    error = manifest["error"]
    if manifest["state"] == "failed":
        cell = f"cell {error['cell']}: " if error["cell"] else ""
        print(error["traceback"], file=sys.stderr)
        print(f"error: {cell}{error['kind']}: {error['message']}", file=sys.stderr)
    print(f"{manifest['state']}: {manifest['output']}")


def number(value: float | None) -> str:
    """A number with four significant digits, or an empty text for None."""
    return "" if value is None else f"{value:.4g}"


def megabytes(path: Path | None) -> str:
    """The size of a file as text, or "not here" for None."""
    return f"{path.stat().st_size / 1e6:.1f} MB" if path else "not here"


def print_rows(rows: list[tuple[Any, ...]]) -> None:
    """Print rows of equal length in aligned columns."""
    texts = [[str(item) for item in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        print("  ".join(item.ljust(width) for item, width in zip(row, widths, strict=True)).rstrip())
