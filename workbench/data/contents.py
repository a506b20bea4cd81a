"""Digests of the bytes of pictures. Files are read once; their sizes and times then identify the bytes."""

import contextlib
import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from workbench.data.index import cached_index, is_whole, open_index, seal
from workbench.files import atomic_write, cache_folder, file_lock, sha256_of_json

LARGEST_IMAGE = 128 << 20  # bytes
DIGEST = 16  # bytes: 128 bits of SHA-256
THREADS = 8  # reading waits for the disk, and hashing releases the GIL
_TYPE = pa.binary(DIGEST)
_ABSENT = bytes(DIGEST)  # a picture that cannot be read
_SIZE_AND_TIME = 16  # leading bytes of a file's state; the time of its last metadata change follows
_SCHEMA = pa.schema({"path": pa.string(), "state": pa.binary(24), "digest": _TYPE})
_VERSION = 2
_BLOCK = 8192
Result = TypeVar("Result")


def digest(data: bytes) -> bytes:
    """The digest that identifies the bytes of a picture."""
    return hashlib.sha256(data).digest()[:DIGEST]


def digests_of_files(paths: pa.ChunkedArray, contents: bool = True) -> pa.Array:
    """A digest of the bytes of every file, null if it cannot be read.

    Digests of files with unchanged size and times come from the cache. Without `contents` no file is read:
    digests of size and modification time replace those of the bytes.
    """
    absolute = [os.path.abspath(path) for path in paths.to_pylist()]
    states = [_state(path) for path in absolute]
    if not contents or not absolute:
        return pa.array(
            [None if state is None else digest(state[:_SIZE_AND_TIME]) for state in states], _TYPE
        )
    folder = os.path.commonpath([min(absolute), max(absolute)])
    memory = cache_folder("pictures", f"{sha256_of_json([_VERSION, folder])[:32]}.arrow")
    # Other processes with the same pictures wait, and use the digests afterwards.
    with file_lock(memory.with_suffix(".arrow.lock")):
        known = _known(memory)
        ours = pa.table({"path": absolute, "state": pa.array(states, _SCHEMA.field("state").type)})
        places = pc.index_in(ours["path"], known["path"].combine_chunks())
        same = pc.fill_null(pc.equal(known["state"].take(places), ours["state"]), False).to_numpy()
        digests = known["digest"].take(places).to_pylist()
        unread = [row for row in np.flatnonzero(~same).tolist() if states[row] is not None]
        for row in np.flatnonzero(~same).tolist():
            digests[row] = None
        finished: list[int] = []
        try:
            for row, value in zip(unread, _each(_digest_of_file, [absolute[r] for r in unread]), strict=True):
                digests[row] = value
                finished.append(row)
        finally:  # keeps what was read when the reading is interrupted
            if finished:
                _remember(
                    memory, known, ours.append_column("digest", pa.array(digests, _TYPE)).take(finished)
                )
    return pa.array(digests, _TYPE)


def digests_in_files(
    files: Sequence[str],
    of_row: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    contents: bool = True,
) -> pa.Array:
    """A digest of the `sizes` bytes at `offsets` in the file of every row, null if they cannot be read.

    `of_row` holds the index of each row's file, in ascending order. The digests of a file are cached under
    its path, size and times. Without `contents` no file is read: digests of the file's size and modification
    time and of the row's position in it replace those of the bytes.
    """
    starts = np.searchsorted(of_row, np.arange(len(files) + 1))

    def of_file(number: int) -> npt.NDArray[np.uint8]:
        rows = slice(starts[number], starts[number + 1])
        path, places = os.path.abspath(files[number]), np.stack([offsets[rows], sizes[rows]], axis=1)
        state = _state(path) or b""
        if not contents:
            return _stacked(digest(state[:_SIZE_AND_TIME] + place.tobytes()) for place in places)
        key = hashlib.sha256(os.fsencode(path) + state + places.tobytes() + bytes([_VERSION])).hexdigest()
        content = cached_index(
            key, lambda stream: stream.writelines(_digests_of_parts(path, places.tolist())), "pictures"
        )
        return _stacked([content.read_bytes()[: DIGEST * len(places)]])

    values = np.concatenate([np.zeros((0, DIGEST), np.uint8), *_each(of_file, range(len(files)))])
    stored = pa.Array.from_buffers(_TYPE, len(values), [None, pa.py_buffer(values.tobytes())])
    return pc.if_else(pc.equal(stored, pa.scalar(_ABSENT, _TYPE)), pa.scalar(None, _TYPE), stored)


def file_states(files: Iterable[str]) -> list[tuple[int, int] | None]:
    """The size and modification time of every file, None if it does not exist."""
    states: list[tuple[int, int] | None] = []
    for file in files:
        try:
            status = os.stat(file)
        except (OSError, ValueError):  # ValueError: a NUL in the name
            states.append(None)
        else:
            states.append((status.st_size, status.st_mtime_ns))
    return states


def digests_by_version(
    versions: Sequence[str],
    of_row: npt.NDArray[np.int32],
    offsets: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
) -> pa.Array:
    """A digest per row of the version of its file, by the file's index, and of its position in the file."""
    places = zip(of_row.tolist(), offsets.tolist(), sizes.tolist(), strict=True)
    return pa.array(
        [digest(f"{versions[file]} {offset} {size}".encode()) for file, offset, size in places], _TYPE
    )


def _each(function: Callable[[Any], Result], items: Sequence[Any]) -> Iterator[Result]:
    """The results of a function in order, computed by several threads, with a progress bar in terminals."""
    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(total=len(items), desc="reading pictures once", disable=None, leave=False) as progress,
    ):
        for start in range(0, len(items), _BLOCK):  # a pool keeps everything submitted in memory
            for result in pool.map(function, items[start : start + _BLOCK]):
                progress.update()
                yield result


def _state(path: str) -> bytes | None:
    """A regular file's size, modification time and time of last metadata change, None for other files."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return struct.pack("<qqq", status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _digest_of_file(path: str) -> bytes | None:
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        data = stream.read(LARGEST_IMAGE + 1)
        return digest(data) if len(data) <= LARGEST_IMAGE else None
    return None


def _digests_of_parts(path: str, places: Sequence[Sequence[int]]) -> list[bytes]:
    digests: list[bytes] = []
    with contextlib.suppress(OSError), open(path, "rb", buffering=0) as stream:
        for offset, size in places:
            stream.seek(offset)
            data = stream.read(size)
            digests.append(digest(data) if len(data) == size else _ABSENT)
    return digests + [_ABSENT] * (len(places) - len(digests))


def _stacked(digests: Iterable[bytes]) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST)


def _known(memory: Path) -> pa.Table:
    """The cached paths, states and digests, an empty table if the cache file is damaged."""
    if not is_whole(memory):
        return _SCHEMA.empty_table()
    known: pa.Table = open_index(memory).read_all()
    return known


def _remember(memory: Path, known: pa.Table, fresh: pa.Table) -> None:
    others = known.filter(pc.invert(pc.is_in(known["path"], fresh["path"].combine_chunks())))
    with atomic_write(memory) as stream:
        with pa.ipc.new_file(stream, _SCHEMA) as writer:
            writer.write_table(pa.concat_tables([others, fresh.cast(_SCHEMA)]))
        seal(stream)
