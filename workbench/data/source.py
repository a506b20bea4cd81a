"""An opened source of any format, and the functions that the formats share."""

import contextlib
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from workbench.data.decode import BadSample, clean_caption, decode_image

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})
LARGEST_IMAGE = 128 << 20  # bytes
LARGEST_TEXT = 1 << 20

SPLIT_FOLDERS = ("train", "val", "valid", "validation", "dev", "test")
# large_string: the text of a source may exceed 2 GB, where the offsets of string end.
SCHEMA = pa.schema(
    {
        "id": pa.large_string(),
        "captions": pa.list_(pa.large_string()),
        "split": pa.string(),
        "path": pa.large_string(),
    }
)
_BATCH = 65_536


@dataclass
class Opened:
    """A source with all its splits.

    `table` has the columns `id`, `captions` and `split` (null throughout where the source has no splits),
    and may have `draw` (`split_draw` of the ids). `read` gives the image of one of its rows. `lost` counts
    rejected pairs by reason, `skipped` what was ignored without losing a pair. `reopen`, of an index, gives
    its ids and captions again in another process; their ids are known to be unique.
    """

    table: pa.Table
    read: Callable[[int], torch.Tensor]
    lost: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    reopen: Callable[[], pa.Table] | None = None

    @property
    def kept(self) -> int:
        """How many pairs are usable; where there are splits, those in one of them."""
        unsplit = self.table["split"].null_count
        return len(self.table) - (unsplit if unsplit < len(self.table) else 0)


@dataclass(frozen=True)
class FileReader:
    """Reads the image of a row from the file named in an Arrow column."""

    paths: pa.ChunkedArray
    max_pixels: int

    def __call__(self, row: int) -> torch.Tensor:
        return decode_image(read_file(self.paths[row].as_py()), self.max_pixels)

    def files(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """The file of each of these rows."""
        return list(self.paths.take(pa.array(rows)).to_pylist())


class PairRows:
    """Collects pairs into Arrow columns and counts those rejected, so that no Python objects pile up."""

    def __init__(self, lost: Mapping[str, int] | None = None) -> None:
        self.lost, self.skipped = Counter[str](lost or {}), Counter[str]()
        self._batches: list[pa.RecordBatch] = []
        self._rows: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def count_rejected(self) -> Iterator[None]:
        """Turn a `BadSample` inside into a count of its reason."""
        try:
            yield
        except BadSample as error:
            self.lost[error.reason] += 1

    def add(self, identity: str, captions: list[str], split: str | None, path: str) -> None:
        """Append one pair; raises `BadSample` for names that are not UTF-8."""
        try:
            f"{identity}{path}".encode()
        except UnicodeError as error:
            raise BadSample("unsafe name") from error
        self._rows.append({"id": identity, "captions": captions, "split": split, "path": path})
        if len(self._rows) == _BATCH:
            self._flush()

    def table(self) -> pa.Table:
        """All pairs added, with the columns of `SCHEMA`."""
        self._flush()
        return pa.Table.from_batches(self._batches, schema=SCHEMA)

    def opened(self, max_pixels: int, table: pa.Table | None = None) -> Opened:
        """The pairs (or `table`, made from them) as a source whose images lie in files."""
        table = self.table() if table is None else table
        reader = FileReader(table["path"], max_pixels)
        return Opened(table.drop_columns("path"), reader, self.lost, self.skipped)

    def _flush(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
        self._rows = []


def check_file(path: str | Path) -> int:
    """The size of a regular file in bytes; raises `BadSample` for anything else."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        missing = isinstance(error, FileNotFoundError)
        raise BadSample("missing file" if missing else "unreadable file") from error
    if not stat.S_ISREG(status.st_mode):
        raise BadSample("not a regular file")
    return status.st_size


def read_file(path: str | Path, largest: int = LARGEST_IMAGE) -> bytes:
    """The bytes of a regular file of at most `largest` bytes; raises `BadSample`."""
    if check_file(path) > largest:
        raise BadSample("file too large")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadSample("unreadable file") from error


def clean_captions(captions: Iterable[object], skipped: Counter[str]) -> list[str]:
    """The usable captions of one picture, one or more; the others are counted in `skipped`.

    Raises `BadSample` with the first reason where none is left.
    """
    usable, reasons = [], []
    for caption in captions:
        try:
            usable.append(clean_caption(caption))
        except BadSample as error:
            reasons.append(error.reason)
    if not usable:
        raise BadSample(reasons[0] if reasons else "no caption")
    skipped.update(reasons)
    return usable


def split_draw(identity: str) -> int:
    """The draw, in [0, 2^64), that puts a pair into a split where its source has none: a hash of its id."""
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8])


def folder_splits(names: Sequence[str]) -> list[str | None] | None:
    """The split of each relative path by its first folder, or None where folders are not splits.

    They do where at least two of them are named like splits; files outside of those then have no split.
    """
    first = [parts[0] if len(parts := PurePosixPath(name).parts) > 1 else "" for name in names]
    if len(set(first) & set(SPLIT_FOLDERS)) < 2:
        return None
    return [folder if folder in SPLIT_FOLDERS else None for folder in first]
