"""Images with captions, map-style: the common form of all sources."""

import hashlib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, SupportsIndex, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from workbench.data.contents import file_states
from workbench.data.source import Rejected
from workbench.files import sha256_of_json

RowNumbers = Sequence[int] | npt.NDArray[np.int64]
_PORTION = 65_536  # rows in memory at a time


class Pairs:
    """Images with captions, by row number.

    `table` has one row a pair: `id` (string, unique), `captions` (list of strings, empty only without
    `captions_needed`), then further columns of the source; an optional `digest` identifies the picture's
    bytes. `read(row)` returns the image of that row of `table` (or of `reader_rows[row]`), uint8 [3, H, W],
    or raises `BadSample`. `rejected` counts the pairs rejected while indexing by reason, `max_failed` is the
    share of unreadable pairs that the user accepts, and `facts` describe the source for the data report.
    With `reopen` the table is an index in the cache, with unique ids, which another process opens by calling
    it. All data stay in Arrow columns, and a subset only holds row numbers, so ten million pairs fit in
    memory. Picklable if `read` is. Raises `ValueError` for a table that breaks these rules.
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
        reader_rows: npt.NDArray[np.int64] | None = None,
        reopen: Callable[[], pa.Table] | None = None,
        facts: Mapping[str, Any] | None = None,
        captions_needed: bool = True,
    ) -> None:
        if reopen is None:
            _check(table, f"{name}, split {split}", captions_needed)
        self.name = name
        self.split = split
        self.rejected = Rejected().absorb(rejected or {})
        self.max_failed = max_failed
        self.facts = dict(facts or {})
        self._whole = table
        self._reopen = reopen
        self._read: Any = read  # may also name the files and shards that it reads
        self._rows: npt.NDArray[np.int64] | None = None  # of a subset: the rows of the whole table
        self._reader_rows = reader_rows  # and those of the reader

    @cached_property
    def table(self) -> pa.Table:
        """All columns of these pairs, one row a pair. For a subset this is a copy in memory."""
        if self._rows is None:
            return self._whole
        portions = [self._portion(start) for start in range(0, len(self), _PORTION)]
        return pa.concat_tables([self._whole.slice(0, 0), *portions])

    def __len__(self) -> int:
        return self._whole.num_rows if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        return f"Pairs({self.name!r}, split={self.split!r}, {len(self)} pairs)"

    @property
    def ids(self) -> list[str]:
        """The id of every pair, in row order."""
        return list(self.each_id())

    def each_id(self) -> Iterator[str]:
        """Iterates over the ids without building a list."""
        for start in range(0, len(self), _PORTION):
            yield from self._portion(start, columns=["id"])["id"].to_pylist()

    def id(self, row: int) -> str:
        """The id of a row."""
        return str(self._whole["id"][self._place(row)].as_py())

    def image(self, row: int) -> torch.Tensor:
        """The image of a row, uint8 [3, H, W]. Raises `BadSample` if it cannot be read."""
        row = self._checked(row)
        return self._read(row if self._reader_rows is None else int(self._reader_rows[row]))

    def captions(self, row: int) -> list[str]:
        """The captions of a row, empty only if the source was opened without `captions_needed`."""
        return list(self._whole["captions"][self._place(row)].as_py())

    def details(self, row: int) -> dict[str, Any]:
        """The further columns of a row, besides its id and captions."""
        place = self._place(row)
        known = ("id", "captions", "digest")
        extra = [column for column in self._whole.column_names if column not in known]
        return {column: self._whole[column][place].as_py() for column in extra}

    @property
    def in_files(self) -> bool:
        """Whether the reader knows the files of the pictures."""
        return hasattr(self._read, "files")

    @property
    def files(self) -> Iterator[str]:
        """The files of the pictures, in row order. Raises ValueError if the reader does not know them."""
        if not self.in_files:
            raise ValueError(f"{self!r}: its reader does not know the files of the pictures")
        rows = np.arange(len(self)) if self._reader_rows is None else self._reader_rows
        yield from self._read.files(rows)

    @property
    def shard(self) -> npt.NDArray[np.int64] | None:
        """The index of the tar shard of every row, [N]; None if the pairs are not in shards."""
        rows = np.arange(len(self)) if self._reader_rows is None else self._reader_rows
        return self._read.shard_of(rows) if hasattr(self._read, "shard_of") else None

    @property
    def all_captions(self) -> "Captions":
        """All T captions, flattened in row order and read on demand."""
        return Captions(self)

    @cached_property
    def first_caption(self) -> npt.NDArray[np.int64]:
        """The flattened position of each row's first caption, [N + 1]; the last entry is T."""
        lengths = pc.list_value_length(self._whole["captions"]).to_numpy()
        lengths = lengths if self._rows is None else lengths[self._rows]
        first = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(lengths, out=first[1:])
        return first

    @cached_property
    def image_of_caption(self) -> npt.NDArray[np.int64]:
        """The row of each flattened caption, [T]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.first_caption))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 as hex of ids, captions and, if the table has them, picture digests, in order."""
        streams = [hashlib.sha256() for _ in range(5)]
        for start in range(0, len(self), _PORTION):
            for batch in self._portion(start, columns=["id", "captions"]).to_batches():
                ids, captions = batch.columns
                _hash_strings(ids, streams[0], streams[1])
                streams[2].update(pc.list_value_length(captions).cast(pa.int64()).to_numpy().tobytes())
                _hash_strings(captions.flatten(), streams[3], streams[4])
        whole = hashlib.sha256(b"".join(stream.digest() for stream in streams))
        if "digest" in self._whole.column_names:
            whole.update(self.pictures_fingerprint.encode())
        return whole.hexdigest()

    @cached_property
    def pictures_fingerprint(self) -> str:
        """SHA-256 as hex of the picture digests in order, otherwise of the files' sizes and times."""
        if "digest" not in self._whole.column_names:
            return sha256_of_json(file_states(self.files))
        whole = hashlib.sha256()
        for start in range(0, len(self), _PORTION):
            digests = self._portion(start, columns=["digest"])["digest"].cast(pa.binary())
            whole.update(b"".join(pc.fill_null(digests, b"unreadable image").to_pylist()))
        return whole.hexdigest()

    def select(self, rows: RowNumbers) -> "Pairs":
        """The pairs of `rows`, in that order. Raises IndexError or ValueError for unknown or repeated
        rows."""
        chosen = np.asarray(rows, dtype=np.int64).reshape(-1)
        if len(chosen) and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise IndexError(f"rows must lie in [0, {len(self)})")
        if len(chosen) and np.bincount(chosen).max() > 1:
            raise ValueError("rows must not repeat, since ids are unique")
        subset = self._copy()
        subset._rows = chosen if self._rows is None else self._rows[chosen]
        subset._reader_rows = chosen if self._reader_rows is None else self._reader_rows[chosen]
        return subset

    def captioned(self) -> "Pairs":
        """The pairs with captions; all pairs if none has a caption."""
        rows = np.flatnonzero(np.diff(self.first_caption))
        return self.select(rows) if 0 < len(rows) < len(self) else self

    def read_by(self, read: Callable[[int], torch.Tensor]) -> "Pairs":
        """The same pairs with images from `read(row)`."""
        pairs = self._copy()
        pairs._read, pairs._reader_rows = read, None
        return pairs

    def _copy(self) -> "Pairs":
        """A copy without cached properties."""
        copy = object.__new__(Pairs)
        derived = ("table", "first_caption", "image_of_caption", "fingerprint", "pictures_fingerprint")
        copy.__dict__ = {name: value for name, value in self.__dict__.items() if name not in derived}
        copy.rejected = self.rejected.copy()
        return copy

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_whole": None if self._reopen else self.table}
        state.pop("table", None)
        return state if self._reopen else state | {"_rows": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        if self._reopen is not None:
            self._whole = self._reopen()

    def _portion(self, start: int, stop: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows `start` to `stop` (default: `_PORTION` rows) in memory."""
        stop = min(len(self), start + _PORTION if stop is None else stop)
        table = self._whole if columns is None else self._whole.select(columns)
        if self._rows is None or stop <= start:
            return table.slice(start, max(0, stop - start))
        # Only of the part that contains them, because `take` first joins all chunks that it is given.
        rows = self._rows[start:stop]
        first = int(rows.min())
        return table.slice(first, int(rows.max()) + 1 - first).take(pa.array(rows - first))

    def _place(self, row: int) -> int:
        """The row of the whole table."""
        row = self._checked(row)
        return row if self._rows is None else int(self._rows[row])

    def _checked(self, row: int) -> int:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} pairs")
        return int(row)


class Captions(Sequence[str]):
    """The captions of some pairs, flattened in row order: a list that reads its items on demand."""

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        return int(self._pairs.first_caption[-1])

    def __repr__(self) -> str:
        return f"Captions({len(self)} of {self._pairs!r})"

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> str | list[str]:
        if not isinstance(index, slice):
            position = range(len(self))[operator.index(index)]
            row = int(np.searchsorted(self._pairs.first_caption, position, side="right")) - 1
            return self._pairs.captions(row)[position - int(self._pairs.first_caption[row])]
        start, stop, step = index.indices(len(self))
        if step != 1:
            return [self[position] for position in range(start, stop, step)]
        if stop <= start:
            return []
        first = self._pairs.first_caption
        begin = int(np.searchsorted(first, start, side="right")) - 1
        end = int(np.searchsorted(first, stop, side="left"))
        captions = self._pairs._portion(begin, end, ["captions"])["captions"]
        skipped = start - int(first[begin])
        return list(pc.list_flatten(captions).slice(skipped, stop - start).to_pylist())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _PORTION):
            yield from self[start : start + _PORTION]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(
            ours == theirs for ours, theirs in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]  # as a list


def _check(table: pa.Table, where: str, captions_needed: bool) -> None:
    if missing := {"id", "captions"} - set(table.column_names):
        raise ValueError(f"{where}: the table of pairs lacks {sorted(missing)}")
    ids, lengths = table["id"], pc.list_value_length(table["captions"])
    if ids.null_count or pc.count_distinct(ids).as_py() < len(ids):
        repeated = [entry["values"] for entry in pc.value_counts(ids).to_pylist() if entry["counts"] > 1]
        raise ValueError(f"{where}: ids must be unique, these are not: {repeated[:5]}")
    if lengths.null_count or (len(lengths) and pc.min(lengths).as_py() < captions_needed):
        row = int(np.flatnonzero(pc.fill_null(lengths, 0).to_numpy() < 1)[0])
        raise ValueError(f"{where}: pair {ids[row].as_py()!r} has no caption")


def _hash_strings(strings: pa.Array, lengths: Any, contents: Any) -> None:
    """Feed lengths and characters to two digests, independent of the array's chunks and offsets."""
    lengths.update(pc.binary_length(strings).cast(pa.int64()).to_numpy().tobytes())
    wide = strings.cast(pa.large_string()).cast(pa.large_binary())
    if len(wide):
        offsets = np.frombuffer(wide.buffers()[1], dtype=np.int64)[wide.offset : wide.offset + len(wide) + 1]
        contents.update(memoryview(wide.buffers()[2] or b"")[offsets[0] : offsets[-1]])
