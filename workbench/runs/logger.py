"""Writes the records of a training run: metrics.jsonl, status.json and lines in the terminal."""

import contextlib
import math
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.data.pairs import Pairs
from workbench.data.report import data_report, report_line
from workbench.files import atomic_write, signed, write_json
from workbench.runs.folder import read_status
from workbench.runs.records import sealed, unsealed
from workbench.runs.tracker import Tracker

STATUS_EVERY = 2.0  # seconds between two updates of status.json
LINE_EVERY = 30.0  # seconds between two lines of output without a terminal


class RunLogger:
    """Writes a run's records. Of several processes, only the first one writes.

    Neither a full disk nor a failing `tracker` stops the training. Records that could not be written are
    counted and reported.
    """

    def __init__(
        self, folder: Path, total_steps: int, writes: bool = True, tracker: Tracker | None = None
    ) -> None:
        self.folder = folder
        self.writes = writes
        self.tracker = tracker
        self.rejected: Counter[str] = Counter()  # reason -> number of pairs that were unusable from the start
        self.failed: dict[str, str] = {}  # id -> reason, for pairs that could not be read during training
        self.skipped_steps = 0
        self.unwritten = 0
        self.step = 0
        self.total_steps = total_steps
        self._started = time.time()
        self._first_step: int | None = None
        self._last_status = 0.0
        self._last_line = time.monotonic()
        self._clock = time.monotonic()
        self._bar: Any = None

    def start(self, step: int) -> None:
        """Start at `step`. Damaged records and those of later steps, which an earlier session wrote after its
        last checkpoint, are removed."""
        self.step = self._first_step = step
        self._clock = time.monotonic()
        if not self.writes:
            return
        path, last = self.folder / "metrics.jsonl", 0
        if path.is_file():
            lines, damaged, last = _records_until(path, step)
            with atomic_write(path) as stream:
                stream.writelines(lines)
            if damaged:
                self.info(f"warning: {damaged} damaged lines were removed from {path}")
        if last < step:
            self.info(f"warning: the records of steps {last + 1} to {step} are missing in {path}")
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self.total_steps, initial=step, unit="step", dynamic_ncols=True)
        self.status("running")

    def record(self, kind: str, step: int, **values: Any) -> None:
        """Append a line to metrics.jsonl. Numbers that are not finite become null."""
        self.step = step
        if not self.writes:
            return
        clean = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        path = self.folder / "metrics.jsonl"
        size = path.stat().st_size if path.is_file() else 0
        try:
            with open(path, "a", encoding="utf-8") as stream:
                stream.write(sealed({"kind": kind, "step": step, **clean}))
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(path, size)  # a full disk may leave a partial line
            self._unwritten(error)
        if self.tracker is not None:
            try:
                self.tracker.record(kind, step, clean)
            except Exception as error:
                self.info(f"warning: the tracker failed ({error}); training continues without it")
                self.tracker = None
        if kind == "step":
            self._show(values)
        if time.time() - self._last_status > STATUS_EVERY:
            self.status("running")

    def status(self, state: str, message: str = "") -> None:
        """Write status.json."""
        if not self.writes:
            return
        self._last_status = time.time()
        done = self.step - (self._first_step or 0)
        rate = done / max(1e-9, time.monotonic() - self._clock)
        try:
            write_json(
                self.folder / "status.json",
                {
                    "state": state,
                    "step": self.step,
                    "total_steps": self.total_steps,
                    "message": message,
                    "pid": os.getpid(),
                    "host": socket.gethostname(),
                    "started": self._started,
                    "updated": self._last_status,
                    "seconds_left": (self.total_steps - self.step) / rate
                    if done and state == "running"
                    else None,
                    "rejected": dict(self.rejected + Counter(self.failed.values())),
                    "skipped_steps": self.skipped_steps,
                },
            )
        except OSError as error:
            self._unwritten(error)

    def data(
        self,
        train: Pairs,
        validation: Pairs,
        unreadable: Mapping[int, str],
        cut: Mapping[str, Any] | None = None,
        validation_cut: Mapping[str, Any] | None = None,
    ) -> None:
        """Print the data report and write it to data.json.

        The report covers the training data without the `unreadable` rows, and the validation data. `cut` has,
        by model, the number of training captions that the model truncates, `validation_cut` that of
        validation captions.
        """
        if self.writes:
            reports = {"train": data_report(train, unreadable), "validation": data_report(validation)}
            for use, counts in (("train", cut), ("validation", validation_cut)):
                reports[use]["captions_cut"] = {name: part._asdict() for name, part in (counts or {}).items()}
            for use, report in reports.items():
                self.info(report_line({"train": "training"}.get(use, use), report))
            try:
                write_json(self.folder / "data.json", signed(reports))
            except OSError as error:
                self._unwritten(error)

    def info(self, text: str) -> None:
        """Print a line to the terminal or the executed notebook."""
        if self.writes:
            if self._bar is not None:
                self._bar.write(text)
            else:
                print(text, flush=True)

    def close(self) -> None:
        """Close the progress bar and end the tracker's run."""
        if self.tracker is not None:
            self.tracker.close()
        if self._bar is not None:
            self._bar.close()

    def _show(self, values: dict[str, Any]) -> None:
        if self._bar is not None:
            self._bar.update(self.step - self._bar.n)
            waiting = f"{values.get('waiting', 0):.0%}"
            numbers = {"loss": f"{values['loss']:.3f}", "scale": f"{values['scale']:.1f}", "waiting": waiting}
            self._bar.set_postfix(numbers)
        elif time.monotonic() - self._last_line > LINE_EVERY:
            self._last_line = time.monotonic()
            done = self.step - (self._first_step or 0)
            left = (self.total_steps - self.step) * (time.monotonic() - self._clock) / max(1, done)
            waiting = f", {values['waiting']:.0%} waiting for data" if "waiting" in values else ""
            self.info(
                f"step {self.step} of {self.total_steps}: loss {values['loss']:.3f}, {left / 60:.1f} min left"
                f"{waiting}"
            )

    def _unwritten(self, error: OSError) -> None:
        self.unwritten += 1
        if self.unwritten == 1:
            self.info(f"warning: the run's records cannot be written ({error}); training continues")


def before_first_step(folder: Path, message: str, state: str = "running") -> None:
    """Update the message and state in status.json while targets are computed, before the first step."""
    now = time.time()
    facts = {"message": message, "pid": os.getpid(), "host": socket.gethostname(), "updated": now}
    with contextlib.suppress(OSError):  # a status that cannot be written must not stop the targets
        known: dict[str, Any] = {"started": now}
        with contextlib.suppress(OSError, ValueError):
            known |= read_status(folder)
        write_json(folder / "status.json", known | facts | {"state": state, "seconds_left": None})


def _records_until(path: Path, step: int) -> tuple[list[bytes], int, int]:
    """The lines of a file of records up to `step`, how many are damaged, and the last recorded step. A kill
    can leave a partial last line, which does not count."""
    lines, damaged, last, required = [], 0, 0, False
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            record, required = unsealed(line, required=required)
        except ValueError:
            damaged += line.endswith(b"\n")
            continue
        if record["step"] <= step and line.endswith(b"\n"):
            lines.append(line)
            last = record["step"]
    return lines, damaged, last
