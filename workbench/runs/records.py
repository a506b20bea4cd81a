"""metrics.jsonl, read once or piece by piece while a run writes it; of long runs what curves can show."""

import json
import os
import re
from array import array
from bisect import bisect_left
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import SettingError

if TYPE_CHECKING:
    from pandas import DataFrame

TAIL = 64  # bytes before the reading position that must still be what they were
BLOCK = 4 << 20  # bytes that are read at a time
# How the logger begins the record of a step, and what is never thinned out: steps that were skipped, and
# the shares of the gradient, measured now and then.
_STEP = re.compile(rb'\{"kind": "step", "step": (\d+),')
_SPECIAL = (b'"loss": null', b'"gradient_norm": null', b'"gradient_share/')


class Records:
    """The records of a run, in tables that grow.

    A last line without its end is left for the next time. A file that was rewritten, or cut and grown again
    (a run that resumes cuts off what came after its checkpoint), is read anew; where a step comes a second
    time, the first one and all that followed it are forgotten.

    With `most` steps are thinned evenly, so that between `most` and twice as many are kept, and beside them
    those that were skipped or measured something of their own. Damaged lines, of a full disk or a kill, are
    left out, or with `strict` a SettingError that names the first.
    """

    def __init__(self, path: Path, *, most: int | None = None, strict: bool = False) -> None:
        self.path = path
        self.most = most
        self.strict = strict
        self._forget()

    def _forget(self) -> None:
        self._place, self._tail, self._lines = 0, b"", 0
        self._file: tuple[int, int] | None = None
        self._last, self._every, self._special = 0, 1, 0
        self._tables = {"step": _Table(), "validation": _Table()}

    @property
    def metrics(self) -> "DataFrame":
        """One row a training step."""
        return self._tables["step"].frame()

    @property
    def validations(self) -> "DataFrame":
        """One row a validation."""
        return self._tables["validation"].frame()

    @property
    def steps(self) -> int:
        """The last training step that was recorded."""
        return self._last

    def read(self) -> "Records":
        """Take in what was written since the last time."""
        if not self.path.is_file():
            self._forget()
            return self
        with open(self.path, "rb") as stream:
            stat = os.fstat(stream.fileno())
            stream.seek(max(0, self._place - len(self._tail)))
            file = stat.st_dev, stat.st_ino
            if file != self._file or stream.read(len(self._tail)) != self._tail:
                self._forget()
            self._file = file
            stream.seek(self._place)
            rest = b""
            while block := stream.read(BLOCK):
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    self._lines += 1
                    self._place += len(line) + 1
                    self._add(line)
                if lines:
                    self._tail = lines[-1][-TAIL + 1 :] + b"\n"
        return self

    def _add(self, line: bytes) -> None:
        if self._every > 1 and (match := _STEP.match(line)):
            step = int(match[1])
            plain = step % self._every and not any(mark in line for mark in _SPECIAL)
            if plain and step > self._last and line.endswith(b"}"):
                self._last = step
                return
        try:
            record = json.loads(line)
            kind, step = record.pop("kind"), record["step"]
            if not isinstance(step, int):
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if self.strict:
                problem = f"line {self._lines} is no record"
                raise SettingError("run", str(self.path), problem, "Take the damaged lines out.") from None
            return
        if kind == "step":
            # A validation comes after the step of its number, so one of this step or later belongs to an
            # earlier try.
            self._tables["validation"].cut(step)
            self._last = step
        if kind in self._tables:
            self._tables[kind].add(record)
            self._thin()

    def _thin(self) -> None:
        table = self._tables["step"]
        if self.most is not None and len(table) - self._special > 2 * self.most:
            self._every *= 2
            table.keep_every(self._every)
            self._special = max(0, len(table) - self.most)


class _Table:
    """Columns of numbers that grow by a record at a time."""

    def __init__(self) -> None:
        self._columns: dict[str, array[float]] = {"step": array("d")}

    def __len__(self) -> int:
        return len(self._columns["step"])

    def add(self, record: dict[str, Any]) -> None:
        """Append a record, in the place of those of its step and later."""
        self.cut(record["step"])
        rows = len(self)
        for name in record:
            if name not in self._columns:
                self._columns[name] = array("d", [nan]) * rows
        for name, column in self._columns.items():
            value = record.get(name)
            column.append(float(value) if isinstance(value, int | float) else nan)

    def cut(self, step: int) -> None:
        """Drop the rows of `step` and later."""
        steps = self._columns["step"]
        if steps and step <= steps[-1]:
            first = bisect_left(steps, step)
            for column in self._columns.values():
                del column[first:]

    def keep_every(self, step: int) -> None:
        """Keep the steps that `step` divides, and those that the rest of the columns say are special."""
        columns = {name: np.array(column) for name, column in self._columns.items()}
        kept = columns["step"] % step == 0
        for name, column in columns.items():
            if name in ("loss", "gradient_norm"):
                kept |= np.isnan(column)
            elif name.startswith("gradient_share/"):
                kept |= ~np.isnan(column)
        self._columns = {name: array("d", column[kept].tobytes()) for name, column in columns.items()}

    def frame(self) -> "DataFrame":
        """The columns as a table; steps are whole numbers."""
        from pandas import DataFrame

        columns = {name: np.array(column) for name, column in self._columns.items()}
        return DataFrame({**columns, "step": columns["step"].astype(np.int64)})
