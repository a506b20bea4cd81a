"""Images with captions, map-style: what every source opens and everything else reads."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

RowNumbers = Sequence[int] | npt.NDArray[np.int64]


class Pairs:
    """Images with captions by row number.

    `table` holds one row a pair: `id` (string, unique), `captions` (list of strings, never empty), then
    whatever the source knows. `read(row)` gives the image of that row of `table`, uint8 [3, H, W], or raises
    `BadSample`. `rejected` counts the pairs rejected while indexing by reason, and `max_failed` is the share
    of unreadable pairs that the user accepts. Everything stays in Arrow columns, so ten million pairs
    fit. Picklable where `read` is. Raises `ValueError` for a table that breaks these rules.
    """

    def __init__(
        self,
        table: pa.Table,
        read: Callable[[int], torch.Tensor],
        *,
        name: str,
        split: str,
        rejected: Mapping[str, int] | None = None,
        max_failed: float = 0.01,
    ) -> None:
        _check(table, f"{name}, split {split}")
        self.table = table
        self.name = name
        self.split = split
        self.rejected: Counter[str] = Counter(rejected or {})
        self.max_failed = max_failed
        self._read = read
        self._reader_rows: npt.NDArray[np.int64] | None = None  # of a subset: the reader's row of each

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"Pairs({self.name!r}, split={self.split!r}, {len(self)} pairs)"

    @property
    def ids(self) -> list[str]:
        """The id of every pair, in row order."""
        return list(self.table["id"].to_pylist())

    def image(self, row: int) -> torch.Tensor:
        """The image of a row, uint8 [3, H, W]; raises `BadSample` where it cannot be read."""
        row = self._checked(row)
        return self._read(row if self._reader_rows is None else int(self._reader_rows[row]))

    def captions(self, row: int) -> list[str]:
        """The captions of a row, one or more."""
        return list(self.table["captions"][self._checked(row)].as_py())

    def details(self, row: int) -> dict[str, Any]:
        """The further columns of a row, beside its id and captions."""
        row = self._checked(row)
        extra = [column for column in self.table.column_names if column not in ("id", "captions")]
        return {column: self.table[column][row].as_py() for column in extra}

    @property
    def files(self) -> Iterator[str]:
        """The files of the pictures, in row order; raises ValueError where the reader names none."""
        rows = np.arange(len(self)) if self._reader_rows is None else self._reader_rows
        if not hasattr(self._read, "files"):
            raise ValueError(f"{self!r}: its reader does not say from which files it reads pictures")
        yield from self._read.files(rows)

    @property
    def shard(self) -> npt.NDArray[np.int64] | None:
        """The number of the tar shard that holds each row, [N]; None where the pairs are not in shards."""
        rows = np.arange(len(self)) if self._reader_rows is None else self._reader_rows
        return self._read.shard_of(rows) if hasattr(self._read, "shard_of") else None

    @property
    def all_captions(self) -> list[str]:
        """Every caption, flattened in row order; T of them."""
        return list(pc.list_flatten(self.table["captions"]).to_pylist())

    @cached_property
    def first_caption(self) -> npt.NDArray[np.int64]:
        """The flattened position of each row's first caption, [N + 1]; the last entry is T."""
        lengths = pc.list_value_length(self.table["captions"]).to_numpy()
        return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)

    @cached_property
    def image_of_caption(self) -> npt.NDArray[np.int64]:
        """The row of each flattened caption, [T]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.first_caption))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of ids and captions in order, as hex; the pictures' bytes are not read."""
        streams = [hashlib.sha256() for _ in range(5)]
        for batch in self.table.select(["id", "captions"]).to_batches():
            ids, captions = batch.columns
            _hash_strings(ids, streams[0], streams[1])
            streams[2].update(pc.list_value_length(captions).cast(pa.int64()).to_numpy().tobytes())
            _hash_strings(captions.flatten(), streams[3], streams[4])
        return hashlib.sha256(b"".join(stream.digest() for stream in streams)).hexdigest()

    def select(self, rows: RowNumbers) -> "Pairs":
        """The pairs of `rows`, in that order, read by the same reader."""
        chosen = np.asarray(rows, dtype=np.int64).reshape(-1)
        if len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise IndexError(f"rows must lie in [0, {len(self)})")
        if len(chosen) and np.bincount(chosen).max() > 1:
            raise ValueError("rows must not repeat, since ids are unique")
        subset = Pairs(self.table.slice(0, 0), self._read, name=self.name, split=self.split)
        subset.table = self.table.take(pa.array(chosen))  # its ids need no second check
        subset.rejected, subset.max_failed = self.rejected.copy(), self.max_failed
        subset._reader_rows = chosen if self._reader_rows is None else self._reader_rows[chosen]
        return subset

    def _checked(self, row: int) -> int:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} pairs")
        return int(row)


def _check(table: pa.Table, where: str) -> None:
    if missing := {"id", "captions"} - set(table.column_names):
        raise ValueError(f"{where}: the table of pairs lacks {sorted(missing)}")
    ids, lengths = table["id"], pc.list_value_length(table["captions"])
    if ids.null_count or pc.count_distinct(ids).as_py() < len(ids):
        repeated = [entry["values"] for entry in pc.value_counts(ids).to_pylist() if entry["counts"] > 1]
        raise ValueError(f"{where}: ids must be unique, these are not: {repeated[:5]}")
    if lengths.null_count or (len(lengths) and pc.min(lengths).as_py() < 1):
        row = int(np.flatnonzero(pc.fill_null(lengths, 0).to_numpy() < 1)[0])
        raise ValueError(f"{where}: pair {ids[row].as_py()!r} has no caption")


def _hash_strings(strings: pa.Array, lengths: Any, contents: Any) -> None:
    """Feed lengths and characters to two digests, independent of the array's chunks and offsets."""
    lengths.update(pc.binary_length(strings).cast(pa.int64()).to_numpy().tobytes())
    wide = strings.cast(pa.large_binary())
    if len(wide):
        offsets = np.frombuffer(wide.buffers()[1], dtype=np.int64)[wide.offset : wide.offset + len(wide) + 1]
        contents.update(memoryview(wide.buffers()[2] or b"")[offsets[0] : offsets[-1]])
