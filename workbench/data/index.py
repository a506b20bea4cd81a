"""Indexes of sources in the cache: Arrow IPC files that one process writes and every process memory-maps.

An index ends with a digest of its content. A file that does not match its digest is written again.
"""

import hashlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pyarrow as pa

from workbench.files import atomic_write, cache_folder, cache_lock, sha256_of_file, sha256_of_json

DIGEST = 64  # bytes at the end: a SHA-256 as hex


def cached_index(key: object, write: Callable[[IO[bytes]], None], folder: str = "index") -> Path:
    """The index for `key` in this folder of the cache. `key` is a JSON value of all that the index depends
    on.

    `write(stream)` creates the index if it is missing or damaged. Only one process does that; the others
    wait.
    """
    name = sha256_of_json(key)[:32]
    path = cache_folder(folder, f"{name}.arrow")
    if not is_whole(path):
        with cache_lock(f"{folder}-{name}"):
            if not is_whole(path):
                with atomic_write(path) as stream:
                    write(stream)
                    seal(stream)
    return path


def seal(stream: IO[bytes]) -> None:
    """Append the digest of a new file's content, which `is_whole` checks."""
    stream.flush()
    stream.write(sha256_of_file(Path(stream.name)).encode())


def open_index(path: Path) -> pa.RecordBatchFileReader:
    """The record batches, memory-mapped, of an index from `cached_index`."""
    content = pa.memory_map(str(path)).read_buffer()
    return pa.ipc.open_file(pa.BufferReader(content.slice(0, content.size - DIGEST)))


def is_whole(path: Path) -> bool:
    """Whether a file exists and matches the digest at its end."""
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size - DIGEST
            if size <= 0:
                return False
            with (
                mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
                memoryview(content) as view,
            ):
                return hashlib.sha256(view[:size]).hexdigest().encode() == view[size:]
    except FileNotFoundError:
        return False
