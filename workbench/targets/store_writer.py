"""Fills a store of targets: resumable after a kill at any instant, by any number of processes at once.

A column is computed in chunks of `batch` rows, whoever computes them, so its bytes depend neither on
interruptions nor on the number of processes. A chunk's rows are on the disk before the byte that marks it as
finished. Nothing is locked: files start out the same whoever makes them, each process takes chunks in a fixed
stride, and of two processes that computed the same chunk the second leaves it as it is.
"""

import contextlib
import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench.errors import SettingError
from workbench.files import sha256_of_file, write_json
from workbench.targets.chunks import Column, ColumnFile, full_disk_explained
from workbench.targets.digests import chunk_digest, read_digests
from workbench.targets.store import (
    FORMAT,
    MANIFEST,
    TargetStore,
    column_specs,
    read_manifest,
    refusal,
    require_same,
    signed_manifest,
)

PATIENCE = 30.0  # seconds (plus three of one's slowest chunks) in which some process must finish a chunk
POLL = 0.1


class Progress(NamedTuple):
    """How far a column is; the rate counts what all processes did since this one began on the column."""

    column: str
    done: int
    total: int
    rows_per_second: float
    seconds_left: float | None


def fill(
    folder: str | Path,
    fingerprint: Mapping[str, Any],
    columns: Mapping[str, Column],
    *,
    batch: int,
    rank: int = 0,
    world: int = 1,
    report: Callable[[Progress], object] | None = None,
) -> TargetStore:
    """Compute what is missing of the store in `folder` and return the store, complete and sealed.

    `fingerprint` is a JSON dict of all that the values depend on. Of `world` processes each takes every
    `world`-th chunk, waits for the others at the end, and takes over the share of those that died. Rows with
    a reason, or not finite in the column's dtype, become NaN (0 in an integer column) and are listed in
    `bad_rows`. Raises SettingError for a folder that cannot be used, has another fingerprint, or was begun
    with another batch; OSError with errno ENOSPC on a full disk, where the finished chunks are kept.
    """
    if batch < 1:
        raise SettingError("targets.batch", batch, "there would be nothing in a batch", "Use 1 or more")
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world} processes")
    if not all(name.isidentifier() for name in columns):
        raise ValueError(f"column names become file names and so must be identifiers: {list(columns)}")
    folder = Path(folder)
    files = [ColumnFile(folder, name, column, batch) for name, column in columns.items()]
    with full_disk_explained(folder):
        _claim(folder, fingerprint, files, batch)
    manifest = read_manifest(folder)
    require_same(folder, manifest, fingerprint)
    stored, expected = column_specs(manifest), {file.name: file.spec for file in files}
    if stored != expected:
        problem = f"its columns are {stored}, wanted are {expected}"
        raise refusal(folder, problem, "Choose another folder, or delete it")
    if not manifest["complete"]:
        if manifest["batch"] != batch:
            raise SettingError(
                "targets.batch",
                batch,
                f"the targets in {folder} were begun with {manifest['batch']}; another changes last bits",
                f"Go on with {manifest['batch']}, or delete the folder",
            )
        for file in files:
            file.prepare()
            if "digests" in manifest:  # begun by a version that wrote none, a store is gone on with unchecked
                file.forget_damaged(rank, world)
        _require_space(folder, files)
        for file in files:
            _fill_column(file, rank, world, report)
        with full_disk_explained(folder):
            _seal(folder, files, rank)
    return TargetStore.open(folder, fingerprint)


def _claim(folder: Path, fingerprint: Mapping[str, Any], files: Sequence[ColumnFile], batch: int) -> None:
    """Write the manifest unless there is one: whoever comes first decides what the folder is for."""
    manifest = {
        "format": FORMAT,
        "complete": False,
        "batch": batch,
        "fingerprint": dict(fingerprint),
        "columns": {file.name: {**file.spec._asdict(), "sha256": None} for file in files},
        "bad_rows": {},
        "digests": "crc32",
    }
    draft = folder / f".{MANIFEST}.{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(name for name in os.listdir(folder) if not name.startswith("."))
        if (folder / MANIFEST).exists():
            return
        if others:
            problem = f"it holds other things ({', '.join(others[:3])}) and no targets"
            raise refusal(folder, problem, "Choose an empty or a new folder")
        write_json(draft, signed_manifest(manifest))
        with contextlib.suppress(FileExistsError):
            os.link(draft, folder / MANIFEST)  # fails where the name is taken, which a rename does not
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise refusal(folder, f"it cannot be written to ({error})", "Choose another folder") from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _require_space(folder: Path, files: Sequence[ColumnFile]) -> None:
    """Say at once, not after hours, that a store will not fit on its disk."""
    needed = sum(file.bytes // max(file.spec.rows, 1) * file.missing() for file in files)
    free = shutil.disk_usage(folder).free
    if needed > free:
        message = (
            f"the targets to compute take {needed / 1e6:,.1f} MB, the disk has {free / 1e6:,.1f} MB free: "
            "free some, or choose another targets.folder"
        )
        raise OSError(errno.ENOSPC, message, str(folder))


def _fill_column(
    file: ColumnFile, rank: int, world: int, report: Callable[[Progress], object] | None
) -> None:
    began, missing = time.monotonic(), file.missing()

    def report_progress() -> None:
        if report:
            remaining, rows = file.missing(), file.spec.rows
            rate = (missing - remaining) / max(time.monotonic() - began, 1e-9)
            report(Progress(file.name, rows - remaining, rows, rate, remaining / rate if rate else None))

    report_progress()
    slowest = 0.0
    for chunk in range(rank, file.chunks, world):
        if not file.finished()[chunk]:
            chunk_began = time.monotonic()
            file.finish(chunk)
            slowest = max(slowest, time.monotonic() - chunk_began)
            report_progress()
    # What is left is the share of other processes: wait as long as they advance, else do it.
    left = file.unfinished()
    advanced = time.monotonic()
    while left:
        own = None
        if time.monotonic() - advanced > PATIENCE + 3 * slowest:
            own = left[rank % len(left)]
            file.finish(own)
        else:
            time.sleep(POLL)
        before, left = left, file.unfinished()
        if len(left) < len(before):
            report_progress()
        if set(before) - set(left) - {own}:
            advanced = time.monotonic()


def _seal(folder: Path, files: Sequence[ColumnFile], rank: int) -> None:
    """Add digests and bad rows to the manifest and call it complete: rank 0 does, or others in its stead."""
    deadline = time.monotonic() + (PATIENCE if rank else 0)
    while not (manifest := read_manifest(folder))["complete"] and time.monotonic() < deadline:
        time.sleep(POLL)
    if not manifest["complete"]:
        for file in files:
            manifest["columns"][file.name]["sha256"] = sha256_of_file(file.path)
            if "digests" in manifest:
                manifest["columns"][file.name]["chunks"] = chunk_digest([read_digests(folder, file.name)])
            manifest["bad_rows"][file.name] = file.bad_rows()
        write_json(folder / MANIFEST, signed_manifest({**manifest, "complete": True}))
