"""An opened source of any format, and the functions that formats share."""

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from workbench.data.contents import LARGEST_IMAGE, digests_of_files
from workbench.data.decode import BadSample, Reason, clean_caption, decode_image
from workbench.errors import SettingError

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"})
OTHER_IMAGES = frozenset({".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl"})  # counted, not decoded
LARGEST_TEXT = 1 << 20

# large_string: the texts of a source may exceed 2 GB, the limit of string's offsets.
SCHEMA = pa.schema(
    {
        "id": pa.large_string(),
        "captions": pa.list_(pa.large_string()),
        "split": pa.string(),
        "path": pa.large_string(),
    }
)
_BATCH = 65_536
EXAMPLES = 3  # ids that are kept for every reason


class Rejected(Counter[str]):
    """Counts of rejected pairs by reason, with the first ids of each reason in `examples`."""

    def __init__(
        self, counts: Mapping[str, int] | None = None, examples: Mapping[str, list[str]] | None = None
    ) -> None:
        super().__init__(counts or {})
        self.examples = {reason: list(ids) for reason, ids in (examples or {}).items()}

    def note(self, reason: str, identity: str, count: int = 1) -> None:
        """Count one, or several, of which `identity` is the first."""
        self[reason] += count
        self.name(reason, [identity])

    def name(self, reason: str, ids: Iterable[str]) -> None:
        """Keep the first of these ids as examples of a reason."""
        known = self.examples.setdefault(reason, [])
        known.extend(identity for identity in ids if identity not in known)
        del known[EXAMPLES:]

    def absorb(self, other: Mapping[str, int]) -> "Rejected":
        """Add the counts and examples of another. Returns self."""
        self.update(other)
        for reason, ids in getattr(other, "examples", {}).items():
            self.name(reason, ids)
        return self

    def described(self) -> str:
        """Reasons, counts and examples as text: `no caption: 2 (a.jpg, b.jpg)`."""
        parts = []
        for reason, count in self.most_common():
            ids = ", ".join(self.examples.get(reason, []))
            more = ", ..." if count > len(self.examples.get(reason, [])) else ""
            parts.append(f"{reason}: {count}" + (f" ({ids}{more})" if ids else ""))
        return ", ".join(parts)

    def copy(self) -> "Rejected":
        """A copy with its own examples."""
        return Rejected(self, self.examples)

    def __reduce__(self) -> tuple[type["Rejected"], tuple[dict[str, int], dict[str, list[str]]]]:
        return Rejected, (dict(self), self.examples)


class NoCaptions(SettingError):
    """Too many pictures have no caption."""


@dataclass
class Opened:
    """A source with all its splits.

    `table` has the columns `id`, `captions` and `split` (all null if the source has no splits) and possibly
    `draw` (`splits.split_draw` of the ids). `read` returns the image of a row. `lost` counts rejected pairs
    by reason, `skipped` what was ignored without losing a pair. `split_from` describes the origin of the
    splits. For an index, `reopen` reads ids and captions again in another process; its ids are known to be
    unique.
    """

    table: pa.Table
    read: Any  # a Callable[[int], torch.Tensor] with `digests`, like FileReader
    lost: Rejected = field(default_factory=Rejected)
    skipped: Rejected = field(default_factory=Rejected)
    split_from: str = ""
    reopen: Callable[[], pa.Table] | None = None

    @property
    def kept(self) -> int:
        """How many pairs are usable; if there are splits, those with a split."""
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

    def digests(self, contents: bool) -> pa.Array:
        """A digest of the content of every row's picture, as `contents.digests_of_files` computes it."""
        return digests_of_files(self.paths, contents)


class PairRows:
    """Collects pairs in Arrow columns, without keeping Python objects, and counts the rejected ones."""

    def __init__(self, lost: Mapping[str, int] | None = None) -> None:
        self.lost, self.skipped = Rejected().absorb(lost or {}), Rejected()
        self._batches: list[pa.RecordBatch] = []
        self._rows: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def count_rejected(self, identity: str) -> Iterator[None]:
        """Turn a `BadSample` raised inside, about the pair with this id, into a count of its reason."""
        try:
            yield
        except BadSample as error:
            self.lost.note(error.reason, identity)

    def add(self, identity: str, captions: list[str], split: str | None, path: str) -> None:
        """Append one pair. Raises `BadSample` for names that are not UTF-8."""
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

    def opened(self, max_pixels: int, table: pa.Table | None = None, split_from: str = "") -> Opened:
        """The pairs (or `table`, made from them) as a source with images in files."""
        table = self.table() if table is None else table
        reader = FileReader(table["path"], max_pixels)
        return Opened(table.drop_columns("path"), reader, self.lost, self.skipped, split_from)

    def _flush(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
        self._rows = []


def check_file(path: str | Path) -> int:
    """The size of a regular file in bytes. Raises `BadSample` for anything else."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        missing = isinstance(error, FileNotFoundError)
        raise BadSample("missing file" if missing else "unreadable file") from error
    if not stat.S_ISREG(status.st_mode):
        raise BadSample("not a regular file")
    return status.st_size


def read_file(path: str | Path, largest: int = LARGEST_IMAGE) -> bytes:
    """The bytes of a regular file of at most `largest` bytes. Raises `BadSample`."""
    if check_file(path) > largest:
        raise BadSample("file too large")
    try:
        with open(path, "rb", buffering=0) as stream:
            return stream.readall()
    except OSError as error:
        raise BadSample("unreadable file") from error


def clean_captions(
    captions: Iterable[object], skipped: Rejected, identity: str, needed: bool = True
) -> list[str]:
    """The usable captions of the picture with this id, one or more. The others are counted in `skipped`.

    If none is usable, raises `BadSample` with the first reason, unless `needed` is false; then an empty
    caption counts as no caption and is not counted as skipped.
    """
    usable, reasons = [], []
    for caption in captions:
        try:
            usable.append(clean_caption(caption))
        except BadSample as error:
            reasons.append(error.reason)
    if not needed:
        reasons = [reason for reason in reasons if reason not in ("empty caption", "no caption")]
    elif not usable:
        raise BadSample(reasons[0] if reasons else "no caption")
    for reason in reasons:
        skipped.note(reason, identity)
    return usable


def text_cell(value: Any, not_utf8: Reason = "damaged record") -> str:
    """The text in a cell of a table, "" if empty. Raises `BadSample` for anything else."""
    try:
        text = value.decode("utf-8-sig") if isinstance(value, bytes) else value
    except UnicodeError as error:
        raise BadSample(not_utf8) from error
    if text is None:
        return ""
    if not isinstance(text, str):
        raise BadSample("damaged record")
    return text.strip()


def is_split_column(name: str) -> bool:
    """Whether a table's column of this name holds the splits: `split` or `Split`."""
    return name.casefold() == "split"


def split_of_record(record: Mapping[str, Any]) -> str:
    """The split in a row of a table, which may be a number there; "" if it has none."""
    value = next((value for name, value in record.items() if is_split_column(name)), None)
    return text_cell(str(value) if isinstance(value, int) else value)


def note_unsplit(table: pa.Table, lost: Rejected) -> int:
    """Count pairs without a split as lost if other pairs have one. Returns how many there are."""
    count: int = table["split"].null_count
    if not count or count == len(table):
        return 0
    ids = table["id"].filter(table["split"].is_null())[:EXAMPLES].to_pylist()
    lost.note("no split", ids[0], count)
    lost.name("no split", ids)
    return count


def text_captions(text: bytes, a_line: bool) -> list[bytes]:
    """The captions in a text file: every non-empty line or, unless `a_line`, the whole text.

    Raises `BadSample` for UTF-16, in which every other byte is a NUL.
    """
    if b"\0" in text:
        raise BadSample("caption not UTF-8")
    lines = [line for line in text.splitlines() if line.strip()] if a_line else [text]
    return lines or [b""]


def folder_of_pictures(names: Sequence[str], *starts: Path) -> Path:
    """The first of the folders `starts`, or of the folders up to two levels below them, that contains one of
    the first of these pictures; the first of `starts` if none does."""
    for start in dict.fromkeys(starts):
        for folder in (start, *sorted(path for depth in ("*/", "*/*/") for path in start.glob(depth))):
            if any(os.path.isfile(folder / name) for name in names[:20]):
                return folder
    return starts[0]
