"""Teachers' targets, looked up: memory-mapped columns with the fingerprint of what they were computed from.

folder/
    manifest.json        fingerprint, columns and their digests, rows that could not be computed, `complete`
    image.npy            [views, rows, dim], a column
    text.npy             [rows, dim], another
    progress/            which chunks are finished, their digests, their bad rows (`store_writer` writes all)
"""

import contextlib
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.errors import SettingError
from workbench.files import (
    atomic_write,
    cache_folder,
    read_json,
    sha256_of_file,
    sha256_of_json,
    signed,
    unsigned,
    write_json,
)
from workbench.targets.digests import DTYPE as DIGEST
from workbench.targets.digests import CheckedColumn, chunk_digest, digests_path, read_digests

FORMAT = 1
AT_ONCE = 256 << 20  # bytes of a column that is checked when it is opened; of a larger one, what is read
MANIFEST = "manifest.json"


class ColumnSpec(NamedTuple):
    """Shape and dtype of a stored column: `[rows, ...]` with `row_axis` 0, `[views, rows, ...]` with 1."""

    shape: tuple[int, ...]
    dtype: str
    row_axis: int

    @property
    def rows(self) -> int:
        """How many rows the column has."""
        return self.shape[self.row_axis]


class TargetStore:
    """A complete store, opened for reading; picklable, another process maps the files anew.

    `columns` are memory maps by name; `bad_rows` gives, by column, the rows that could not be computed, which
    hold NaN, and why; `fingerprint` tells which teacher and which data this is.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], columns: dict[str, np.memmap]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.columns = columns
        self.fingerprint: dict[str, Any] = manifest["fingerprint"]
        self.bad_rows: dict[str, dict[int, str]] = {
            name: {int(row): reason for row, reason in rows.items()}
            for name, rows in manifest["bad_rows"].items()
        }
        self._checked = {name: _checked(folder, manifest, name, column) for name, column in columns.items()}

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return TargetStore.open, (self.folder,)

    @classmethod
    def open(cls, folder: str | Path, fingerprint: Mapping[str, Any] | None = None) -> "TargetStore":
        """Open the store in `folder`; with a `fingerprint`, only if it was computed from just that.

        Raises SettingError where there is none, or one that is of another fingerprint, incomplete or damaged.
        Columns of up to `AT_ONCE` bytes are checked here, larger ones chunk by chunk before they are first
        read. Of a store of an older version, without digests of its chunks, every column is checked as a
        whole, once, and the digests are added.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if fingerprint is not None:
            require_same(folder, manifest, fingerprint)
        if not manifest["complete"]:
            missing = {
                name: missing_rows(finished(folder, name), spec.rows, manifest["batch"])
                for name, spec in column_specs(manifest).items()
            }
            counts = ", ".join(f"{rows} rows of {name}" for name, rows in missing.items() if rows)
            problem = f"the targets in it are not complete ({counts or 'only the sealing'} to go)"
            raise refusal(folder, problem, "Run again what fills it: it goes on where it stopped")
        columns = {name: map_column(folder, name, spec) for name, spec in column_specs(manifest).items()}
        if any("chunks" not in entry for entry in manifest["columns"].values()):
            manifest = _with_digests(folder, manifest, columns)
        return cls(folder, manifest, columns)

    def column(self, name: str) -> np.memmap:
        """The memory map of a column, `[rows, ...]` or `[views, rows, ...]`, all of it checked."""
        self._checked[name].require_all()
        return self.columns[name]

    def rows(self, name: str, index: Any, view: int = 0) -> np.ndarray:
        """Copy the rows `index` (integers, any order) of a column's `view`, `[len(index), ...]`."""
        column = self._checked[name]
        column.require(index)
        return np.take(column.views[view], index, axis=0)

    def verify(self) -> None:
        """Read every column; raises SettingError if one is not what it was when it was sealed."""
        for name, entry in self.manifest["columns"].items():
            if sha256_of_file(self.folder / f"{name}.npy") != entry["sha256"]:
                raise damage(self.folder, f"{name}.npy (its sha256 is not the one it was sealed with)")


def store_folder(fingerprint: Mapping[str, Any], name: str) -> Path:
    """The default place, in the cache, of the store with this fingerprint; `name` is for people."""
    readable = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:200]  # file names have 255 bytes
    return cache_folder("targets", f"{readable}-{sha256_of_json(fingerprint)[:12]}")


def refusal(folder: Path, problem: str, remedy: str) -> SettingError:
    """The error that a folder is not to be used, and what to do."""
    return SettingError("targets.folder", str(folder), problem, remedy)


def damage(folder: Path, what: str) -> SettingError:
    """The error that a file of a store is damaged."""
    remedy = "Delete the folder; they are then computed again"
    return refusal(folder, f"the targets in it are damaged: {what}", remedy)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a store; raises SettingError where there is none that can be read."""
    try:
        manifest: dict[str, Any] = read_json(folder / MANIFEST)
        version = manifest["format"]
        lacking = {"columns", "complete", "fingerprint", "bad_rows"} - manifest.keys()
        if version == FORMAT and lacking:
            raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
        manifest = unsigned(manifest)
    except (FileNotFoundError, NotADirectoryError):
        remedy = "Fill it first, or choose a folder that was filled"
        raise refusal(folder, "there are no targets in it", remedy) from None
    except (ValueError, KeyError, TypeError) as error:
        raise damage(folder, f"{MANIFEST} cannot be read ({error})") from error
    if version != FORMAT:
        problem = f"its format is {version}, this version reads {FORMAT}"
        raise refusal(folder, problem, "Choose another folder")
    return manifest


def signed_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with a digest of what does not change while the store is filled, and of the bad rows."""
    return signed(manifest, ("format", "fingerprint", "batch", "columns", "bad_rows"))


def is_complete(folder: Path) -> bool:
    """Whether a store is there, filled and sealed."""
    return (folder / MANIFEST).is_file() and bool(read_manifest(folder)["complete"])


def column_specs(manifest: dict[str, Any]) -> dict[str, ColumnSpec]:
    """The specification of each column, by name."""
    return {
        name: ColumnSpec(tuple(entry["shape"]), entry["dtype"], entry["row_axis"])
        for name, entry in manifest["columns"].items()
    }


def map_column(folder: Path, name: str, spec: ColumnSpec) -> np.memmap:
    """Map a column read-only; raises SettingError when it is not the array that the manifest promises."""
    path = folder / f"{name}.npy"
    try:
        column = np.lib.format.open_memmap(path, mode="r")  # reads arrays of numbers only, no pickles
        promised = column.shape == spec.shape and column.dtype == spec.dtype and column.flags.c_contiguous
        size = path.stat().st_size
        if promised and size == column.offset + column.nbytes:
            return column
    except Exception as error:  # a damaged header is parsed as Python, whose tokenizer has errors of its own
        raise damage(folder, f"{path.name} ({error})") from error
    raise damage(folder, f"{path.name}, of {size} bytes, is not {list(spec.shape)} of {spec.dtype}")


def views_of(column: np.ndarray, row_axis: int) -> list[np.ndarray]:
    """A column's views, [rows, ...] each: plain arrays over the same memory, for a memmap pays for its
    subclass at every look-up."""
    return list(np.asarray(column)) if row_axis else [np.asarray(column)]


def _checked(folder: Path, manifest: dict[str, Any], name: str, column: np.ndarray) -> CheckedColumn:
    """A column that is checked: now where it is small, else as it is read."""
    entry = manifest["columns"][name]
    views, batch, digests = views_of(column, entry["row_axis"]), manifest["batch"], None
    error = functools.partial(damage, folder)
    if entry.get("chunks") is not None:
        try:
            digests = read_digests(folder, name)
        except (OSError, ValueError) as problem:
            raise error(f"{digests_path(folder, name).name} cannot be read ({problem})") from problem
        whole = len(digests) == -(-len(views[0]) // batch)
        if not whole or chunk_digest([digests]) != entry["chunks"]:
            raise error(f"{digests_path(folder, name).name} (its CRC-32 differs)")
    checked = CheckedColumn(name, views, batch, digests, error)
    if column.nbytes <= AT_ONCE:
        checked.require_all()
    return checked


def _with_digests(
    folder: Path, manifest: dict[str, Any], columns: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The manifest with digests of chunks, which an older version's store lacks, once its columns' own
    digests are checked. Where the folder cannot be written to, they are checked at every opening."""
    entries = {}
    for name, entry in manifest["columns"].items():
        if sha256_of_file(folder / f"{name}.npy") != entry["sha256"]:
            raise damage(folder, f"{name}.npy (its sha256 is not the one it was sealed with)")
        views, batch = views_of(columns[name], entry["row_axis"]), manifest["batch"]
        starts = range(0, len(views[0]), batch)
        digests = np.array([chunk_digest([view[at : at + batch] for view in views]) for at in starts], DIGEST)
        with contextlib.suppress(OSError), atomic_write(digests_path(folder, name)) as stream:
            stream.write(digests.tobytes())
        entries[name] = {**entry, "chunks": chunk_digest([digests])}
    try:
        write_json(folder / MANIFEST, signed_manifest({**manifest, "columns": entries}))
    except OSError:
        return {**manifest, "columns": {name: {**entry, "chunks": None} for name, entry in entries.items()}}
    return {**manifest, "columns": entries}


def finished(folder: Path, name: str) -> np.ndarray:
    """Which chunks of a column are on the disk, uint8 [chunks]; empty before anything was done."""
    try:
        return np.fromfile(folder / "progress" / f"{name}.done", dtype=np.uint8)
    except FileNotFoundError:
        return np.empty(0, dtype=np.uint8)


def missing_rows(done: np.ndarray, rows: int, batch: int) -> int:
    """How many of `rows` rows are not on the disk, given which chunks of `batch` rows are."""
    chunks = np.flatnonzero(done)
    return rows - int(np.minimum(batch, rows - chunks * batch).sum())


def require_same(folder: Path, manifest: dict[str, Any], fingerprint: Mapping[str, Any]) -> None:
    """Raise SettingError, showing both fingerprints and what differs, unless the store has the wanted one."""
    stored, expected = manifest["fingerprint"], json.loads(json.dumps(fingerprint))
    hashes = sha256_of_json(stored), sha256_of_json(expected)
    if hashes[0] == hashes[1]:
        return
    old, new = _flat(stored), _flat(expected)
    differing = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    entries = [f"{key}: {old.get(key, 'absent')} there, {new.get(key, 'absent')} wanted" for key in differing]
    differences = "; ".join(entries)
    problem = f"its targets have the fingerprint {hashes[0][:12]}, wanted is {hashes[1][:12]} ({differences})"
    remedy = "Choose another folder, set targets.folder to null for one of its own, or delete this one"
    raise refusal(folder, problem, remedy)


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """The leaves of nested dicts as JSON, by dotted key."""
    if isinstance(value, dict) and value:
        parts = [_flat(item, f"{prefix}.{key}" if prefix else key) for key, item in value.items()]
        return {key: leaf for part in parts for key, leaf in part.items()}
    return {prefix: json.dumps(value)}
