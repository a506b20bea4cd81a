"""One column of a store while it is being filled: its file, and which chunks of its rows are on the disk."""

import contextlib
import errno
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workbench.files import disk_errors_name, read_json, write_json
from workbench.targets.digests import DTYPE, chunk_digest, digests_path, read_digests
from workbench.targets.store import ColumnSpec, damage, finished, map_column, missing_rows, views_of


@dataclass(frozen=True)
class Column:
    """What a column is to hold: shape, dtype, and a function that computes a run of its rows.

    `compute(slice(a, b))` returns the values of those rows (`[b - a, ...]`, or `[views, b - a, ...]` with
    `row_axis` 1) and a dict with the reason for each row that could not be computed. It depends on the rows
    alone.
    """

    shape: tuple[int, ...]
    dtype: str
    compute: Callable[[slice], tuple[np.ndarray, Mapping[int, str]]]
    row_axis: int = 0

    @property
    def spec(self) -> ColumnSpec:
        """What of it the manifest records."""
        return ColumnSpec(tuple(self.shape), np.dtype(self.dtype).name, self.row_axis)


class ColumnFile:
    """The files of one column: a chunk is computed, written, synced, and only then marked as finished."""

    def __init__(self, folder: Path, name: str, column: Column, batch: int) -> None:
        self.folder, self.name, self.column, self.batch = folder, name, column, batch
        self.spec = column.spec
        self.chunks = -(-self.spec.rows // batch)
        self.bytes = math.prod(self.spec.shape) * np.dtype(self.spec.dtype).itemsize
        self.path = folder / f"{name}.npy"
        self.progress = folder / "progress"
        self.marks = self.progress / f"{name}.done"
        self.digests = digests_path(folder, name)

    def finished(self) -> np.ndarray:
        """Which chunks are on the disk, uint8 [chunks]."""
        return finished(self.folder, self.name)

    def unfinished(self) -> list[int]:
        """The other chunks."""
        return np.flatnonzero(self.finished() == 0).tolist()

    def missing(self) -> int:
        """Rows still to compute."""
        return missing_rows(self.finished(), self.spec.rows, self.batch)

    def prepare(self) -> None:
        """Make the files unless they are there; several processes may do so at once, for they do the same."""
        header, descr = io.BytesIO(), np.lib.format.dtype_to_descr(np.dtype(self.spec.dtype))
        described = {"descr": descr, "fortran_order": False, "shape": self.spec.shape}
        np.lib.format.write_array_header_1_0(header, described)
        with full_disk_explained(self.folder):
            self.progress.mkdir(exist_ok=True)
            _extend(self.marks, b"", self.chunks)
            _extend(self.digests, b"", self.chunks * DTYPE.itemsize)
            if not self.finished().any():  # a file that is too short in spite of finished chunks is damaged
                _extend(self.path, header.getvalue(), header.tell() + self.bytes)
        if len(self.finished()) != self.chunks:
            raise damage(self.folder, f"progress/{self.marks.name} has not one byte a chunk")
        map_column(self.folder, self.name, self.spec)

    def forget_damaged(self, rank: int, world: int) -> None:
        """Take the mark from finished chunks of this process's share that are not what was written: they are
        computed again."""
        views = views_of(map_column(self.folder, self.name, self.spec), self.spec.row_axis)
        known = read_digests(self.folder, self.name)
        for chunk in np.flatnonzero(self.finished()).tolist():
            first = chunk * self.batch
            if chunk % world != rank:
                continue
            if chunk_digest([view[first : first + self.batch] for view in views]) != known[chunk]:
                _write_at(self.marks, [chunk], [np.zeros(1, np.uint8)])

    def finish(self, chunk: int) -> None:
        """Compute a chunk and put it on the disk, unless another process has done so by then."""
        rows = slice(chunk * self.batch, min((chunk + 1) * self.batch, self.spec.rows))
        values, bad = self._computed(rows)
        if self.finished()[chunk]:
            return
        header = self.path.stat().st_size - self.bytes
        row_bytes = values[0, 0].nbytes
        offsets = [header + (view * self.spec.rows + rows.start) * row_bytes for view in range(len(values))]
        record = self.progress / f"{self.name}-{chunk}.bad"
        with full_disk_explained(self.folder):
            _write_at(self.path, offsets, values)
            if bad:
                write_json(record, bad)
            else:
                record.unlink(missing_ok=True)
            digest = np.array([chunk_digest(list(values))], DTYPE)
            _write_at(self.digests, [chunk * DTYPE.itemsize], digest[None])
            _write_at(self.marks, [chunk], [np.ones(1, np.uint8)])

    def bad_rows(self) -> dict[str, str]:
        """The rows that could not be computed, in ascending order, and why."""
        merged: dict[str, str] = {}
        for path in self.progress.glob(f"{self.name}-*.bad"):
            try:
                merged |= {str(int(row)): str(reason) for row, reason in read_json(path).items()}
            except (ValueError, AttributeError) as error:
                raise damage(self.folder, f"progress/{path.name} ({error})") from error
        return {row: merged[row] for row in sorted(merged, key=int)}

    def _computed(self, rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        """Values `[views, rows, ...]` in the column's dtype, and the bad rows in ascending order."""
        raw, reasons = self.column.compute(rows)
        where = f"column {self.name}, rows {rows.start} to {rows.stop}"
        axis = self.spec.row_axis
        shape = (*self.spec.shape[:axis], rows.stop - rows.start, *self.spec.shape[axis + 1 :])
        if raw.shape != shape:
            raise ValueError(f"{where}: computed {raw.shape}, not {shape}")
        if not all(rows.start <= row < rows.stop for row in reasons):
            raise ValueError(f"{where}: reasons for rows {list(reasons)}")
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes a bad row below
            values = np.array(raw, dtype=self.spec.dtype)
        values = values if axis else values[None]
        floating = np.issubdtype(values.dtype, np.floating)
        bad = {int(row): str(reason) for row, reason in reasons.items()}
        if floating:
            finite = np.isfinite(values).all(axis=(0, *range(2, values.ndim)))
            for row in (np.flatnonzero(~finite) + rows.start).tolist():
                bad.setdefault(row, f"not finite in {self.spec.dtype}")
        for row in bad:
            values[:, row - rows.start] = np.nan if floating else 0
        return values, dict(sorted(bad.items()))


@contextlib.contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn the bare error of a full disk, or quota, into one that says what is kept and what to do."""
    try:
        with disk_errors_name(folder):
            yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = (
            "the disk is full; the targets finished so far are kept: free some space and run the same again"
        )
        raise OSError(errno.ENOSPC, message, str(folder)) from error


def _extend(path: Path, header: bytes, size: int) -> None:
    """Make the file `size` bytes long, `header` and then zeros; one that has that size is left alone."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if os.fstat(handle).st_size < size:
            _write_all(handle, header, 0)
            os.ftruncate(handle, size)
    finally:
        os.close(handle)


def _write_at(path: Path, offsets: Sequence[int], parts: Sequence[np.ndarray] | np.ndarray) -> None:
    """Write each part at its offset; returns when all of it is on the disk.

    Not through a memory map, where a full disk is no exception but a SIGBUS.
    """
    handle = os.open(path, os.O_RDWR)
    try:
        for offset, part in zip(offsets, parts, strict=True):
            _write_all(handle, part.tobytes(), offset)
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_all(handle: int, data: bytes, offset: int) -> None:
    while data:  # a disk that is nearly full takes a part of it
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written
