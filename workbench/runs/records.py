"""Reads metrics.jsonl, also while a run writes it, and thins out the steps of long runs."""

import json
import os
import re
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.errors import SettingError

if TYPE_CHECKING:
    from pandas import DataFrame

TAIL = 64  # bytes before the reading position that are checked for changes
BLOCK = 4 << 20  # bytes read at a time
# The start of a step's record, and the marks of records that are never thinned out: skipped steps, and
# gradient shares, which are measured only at some steps.
_STEP = re.compile(rb'\{"kind": "step", "step": (\d+),')
_SPECIAL = (b'"loss": null', b'"gradient_norm": null', b'"gradient_share/')
_DIGEST = b', "crc32": '


def sealed(record: Mapping[str, Any]) -> str:
    """A record as a line that ends with the CRC-32 of what comes before it."""
    body = json.dumps(record)[:-1]
    return f"{body}{_DIGEST.decode()}{zlib.crc32(body.encode())}}}\n"


def unsealed(line: bytes, *, required: bool) -> tuple[dict[str, Any], bool]:
    """The record in a line, and whether the line has a digest, which those of older runs lack.

    Raises ValueError for a line that is no record, does not fit its digest, or lacks one that is `required`.
    """
    body, mark, digest = line.rstrip(b"\n").rpartition(_DIGEST)
    if (required and not mark) or (mark and digest != b"%d}" % zlib.crc32(body)):
        raise ValueError("its CRC-32 differs")
    try:
        record = json.loads(body + b"}" if mark else line)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    valid = isinstance(record, dict) and isinstance(record.get("step"), int) and "kind" in record
    if not valid:
        raise ValueError("it has no kind and step")
    return record, bool(mark)


class Records:
    """The records of a run as growing tables.

    `read` takes in new records and leaves an incomplete last line for the next call. A file that was
    rewritten or truncated is read again from its start, because a resumed run removes the records after its
    checkpoint. If a step is recorded twice, the first record and all that followed it are dropped.

    With `most`, steps are thinned out evenly to between `most` and twice as many. Skipped steps and those
    with gradient shares are always kept. Damaged lines, left by a full disk or a kill, are ignored. With
    `strict` the first one raises a SettingError.
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
        self._sealed = False  # whether lines have digests
        self._tables = {"step": _Table(), "validation": _Table()}

    @property
    def metrics(self) -> "DataFrame":
        """A table with one row per training step."""
        return self._tables["step"].frame()

    @property
    def validations(self) -> "DataFrame":
        """A table with one row per validation."""
        return self._tables["validation"].frame()

    @property
    def steps(self) -> int:
        """The last recorded training step."""
        return self._last

    def read(self) -> "Records":
        """Read the records that were written since the last call, and return self."""
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
            record, self._sealed = unsealed(line, required=self._sealed)
        except ValueError as error:
            if self.strict:
                problem = f"line {self._lines} is not a record as it was written ({error})"
                raise SettingError("run", str(self.path), problem, "Remove the damaged lines.") from None
            return
        kind, step = record.pop("kind"), record["step"]
        if kind == "step":
            # A validation follows its step, so one of this step or later belongs to a previous session.
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
    """Columns of numbers that grow by one record at a time."""

    def __init__(self) -> None:
        self._columns: dict[str, array[float]] = {"step": array("d")}

    def __len__(self) -> int:
        return len(self._columns["step"])

    def add(self, record: dict[str, Any]) -> None:
        """Append a record. It replaces the rows of its step and later ones."""
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
        """Keep the multiples of `step`, skipped steps, and steps with gradient shares."""
        columns = {name: np.array(column) for name, column in self._columns.items()}
        kept = columns["step"] % step == 0
        for name, column in columns.items():
            if name in ("loss", "gradient_norm"):
                kept |= np.isnan(column)
            elif name.startswith("gradient_share/"):
                kept |= ~np.isnan(column)
        self._columns = {name: array("d", column[kept].tobytes()) for name, column in columns.items()}

    def frame(self) -> "DataFrame":
        """The columns as a table with integer steps."""
        from pandas import DataFrame

        columns = {name: np.array(column) for name, column in self._columns.items()}
        return DataFrame({**columns, "step": columns["step"].astype(np.int64)})
