"""What commands share: an option, printing tables, logs and outcomes, and signals to stop."""

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
    """Make SIGTERM an interrupt, so that what has to be tidied up is; the list holds it once it came."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def follow(job: "Job") -> "Run":
    """Print what a job's processes print until it ends; an interrupt makes it save and stop."""
    shown = 0
    try:
        while True:
            running, log = job.running, job.log
            print(log[shown:], end="", flush=True)
            shown = len(log)
            if not running:
                return job.run
            time.sleep(0.5)
    except KeyboardInterrupt:
        job.stop()
        print(job.log[shown:], end="", flush=True)
        print(job.run)
        raise


def exit_code(run: "Run") -> int:
    """What a command that trained exits with: 0, 1 after a failure, or 128 and the signal that stopped it."""
    state, message = run.status.get("state"), str(run.status.get("message"))
    if state == "interrupted":
        return 128 + (signal.SIGTERM if "SIGTERM" in message else signal.SIGINT)
    return 0 if state == "finished" else 1


def say_outcome(manifest: dict[str, Any]) -> None:
    """Tell how a notebook ended and where it lies, an error on standard error."""
    error = manifest["error"]
    if manifest["state"] == "failed":
        where = f"cell {error['cell']}: " if error["cell"] else ""
        print(error["traceback"], file=sys.stderr)
        print(f"error: {where}{error['kind']}: {error['message']}", file=sys.stderr)
    print(f"{manifest['state']}: {manifest['output']}")


def number(value: float | None) -> str:
    """Four significant digits, or nothing."""
    return "" if value is None else f"{value:.4g}"


def megabytes(path: Path | None) -> str:
    """A file's size, or that it is not here."""
    return f"{path.stat().st_size / 1e6:.1f} MB" if path else "not here"


def print_rows(rows: list[tuple[Any, ...]]) -> None:
    """Print rows of equal length in aligned columns."""
    texts = [[str(item) for item in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        print("  ".join(item.ljust(width) for item, width in zip(row, widths, strict=True)).rstrip())
