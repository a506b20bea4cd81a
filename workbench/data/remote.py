"""Files behind a URL that fsspec knows: listed, read in ranges, or cached whole within a size limit, with
retries."""

import io
import math
import os
import re
import shutil
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import fsspec
from fsspec.asyn import AsyncFileSystem

from workbench.errors import SettingError
from workbench.files import atomic_write, cache_folder, cache_lock, sha256_of_json

WAITS = (0.5, 2.0, 8.0)  # seconds before each further attempt
BLOCK = 8 << 20  # bytes of a range when a file is read from end to end
IN_USE = 300  # seconds after its last use during which a cached file is not deleted
LOOK_AGAIN = 60  # seconds until a file that did not fit into the cache is tried again
_LOOKED_FOR_ROOM: dict[Path, float] = {}
_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
# What servers call the version of a file's content, the most reliable first.
_VERSIONS = ("etag", "content-md5", "md5hash", "blob_id", "last-modified", "lastmodified", "updated", "mtime")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class FileState(NamedTuple):
    """The size of a remote file, and the `version` of its content as the server states it, "" if unknown."""

    url: str
    size: int
    version: str


def is_remote(source: str | os.PathLike[str]) -> bool:
    """Whether a source is a URL."""
    return _URL.match(os.fspath(source)) is not None


def list_files(url: str, base: str, pattern: bool) -> list[str]:
    """The files in a remote folder, or those that match a pattern, as sorted names relative to `base`."""
    filesystem, path = _filesystem(url)
    top = _filesystem(base)[1]
    try:
        paths = _persist(lambda: filesystem.glob(path) if pattern else filesystem.find(path))
    except Exception as error:  # every filesystem raises its own
        problem = f"it cannot be listed ({_reason(error)})"
        remedy = "Name the files one by one, or as {000..123}."
        raise SettingError("data.source", url, problem, remedy) from error
    return sorted(name.removeprefix(top).lstrip("/") for name in paths)


def file_states(urls: list[str]) -> list[FileState]:
    """The state of every file. Raises `SettingError` naming the files that cannot be opened."""
    _filesystem(urls[0])  # a missing package is not the fault of a file

    def state(url: str) -> FileState | str:
        try:
            filesystem, path = _filesystem(url)
            facts = {name.lower(): value for name, value in _persist(lambda: filesystem.info(path)).items()}
        except Exception as error:  # every filesystem raises its own
            return _reason(error)
        if facts["size"] is None:
            return "its server does not state its size"
        versions = [str(facts[name]) for name in (*_VERSIONS, "created") if facts.get(name)]
        return FileState(url, facts["size"], versions[0] if versions else "")

    with ThreadPoolExecutor(16) as pool:
        states = dict(zip(urls, pool.map(state, urls), strict=True))
    if failed := {url: reason for url, reason in states.items() if isinstance(reason, str)}:
        named = "; ".join(f"{url}: {reason}" for url, reason in list(failed.items())[:5])
        problem = f"{len(failed)} of {len(urls)} files cannot be opened ({named})"
        remedy = "Check the names, the access rights and the connection, or leave these files out."
        raise SettingError("data.source", next(iter(failed)), problem, remedy)
    return [state for state in states.values() if isinstance(state, FileState)]


def read_range(url: str, start: int, size: int) -> bytes:
    """Read `size` bytes from `start` on, fewer at the end of the file.

    Raises FileNotFoundError if the file no longer exists, and `SettingError` if it cannot be read.
    """
    data, offset = _fetch(url, start, size)
    return data[start - offset :][:size]


def open_remote(state: FileState) -> IO[bytes]:
    """The file as a seekable stream, read in blocks."""
    return io.BufferedReader(_Ranges(state), BLOCK)


def cached_copy(state: FileState, gigabytes: float) -> Path | None:
    """The whole file in the cache, fetched on the first call. None if it does not fit.

    All cached files together take at most this many gigabytes (10^9 bytes). The least recently used files are
    deleted first, but none that was used in the last minutes: if more files are in use than fit, reading the
    others in ranges is faster than fetching them again and again.
    """
    folder = cache_folder("shards")
    name = sha256_of_json(state)[:32]
    path = folder / f"{name}.tar"
    if not path.exists():
        if time.monotonic() < _LOOKED_FOR_ROOM.get(path, -math.inf) + LOOK_AGAIN:
            return None
        with cache_lock(f"shard-{name}"):
            if not (path.exists() or _download(state, path, int(gigabytes * 1e9))):
                _LOOKED_FOR_ROOM[path] = time.monotonic()
                return None
    os.utime(path)
    return path


def _download(state: FileState, path: Path, limit: int) -> bool:
    """Fetch a file to `path`. Returns False if it does not fit."""
    if state.size > limit:
        return False
    with atomic_write(path) as copy:
        with cache_lock("shards"):
            copy.truncate(state.size)  # claims its space before other processes look for theirs
            room = _make_room(path.parent, limit)
        if room:
            with open_remote(state) as stream:
                shutil.copyfileobj(stream, copy, BLOCK)
    if not room:
        path.unlink()
    return room


def _make_room(folder: Path, limit: int) -> bool:
    """Delete the least recently used files until the others fit. Returns False if too many are in use."""
    states = sorted(((path.stat(), path) for path in folder.iterdir()), key=lambda item: item[0].st_mtime)
    total = sum(status.st_size for status, _ in states)
    for status, path in states:
        if total <= limit or status.st_mtime > time.time() - IN_USE:
            break
        path.unlink(missing_ok=True)
        total -= status.st_size
    return total <= limit


def in_parallel(
    function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[_Result]:
    """The results of `function` for every item, in order, computed `ahead` by as many threads."""
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(ahead) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class _Ranges(io.RawIOBase):
    """A remote file as a raw stream."""

    mode = "rb"

    def __init__(self, state: FileState) -> None:
        self.name = state.url
        self._state, self._place = state, 0
        self._data, self._offset = b"", 0  # the last response: all of the file if a server ignores ranges

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._state.size}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._state.size - self._place)
        if size <= 0:
            return 0
        if not self._offset <= self._place <= self._place + size <= self._offset + len(self._data):
            self._data, self._offset = _fetch(self._state.url, self._place, size)
        part = self._data[self._place - self._offset :][:size]
        buffer[: len(part)] = part
        self._place += len(part)
        return len(part)


def _fetch(url: str, start: int, size: int) -> tuple[bytes, int]:
    """Bytes of a file and the offset of the first: `start`, or 0 if a server sends the whole file."""
    filesystem, path = _filesystem(url)
    # Filesystems without range requests open the file, and would read ahead.
    options = {} if isinstance(filesystem, AsyncFileSystem) else {"cache_type": "none"}
    try:
        data = _persist(lambda: filesystem.cat_file(path, start=start, end=start + size, **options))
    except FileNotFoundError:
        raise
    except Exception as error:
        if getattr(error, "status", None) == 416:  # the file ends before this range
            return b"", start
        problem = f"it cannot be read ({_reason(error)})"
        remedy = "Check the connection and the access rights, and start again; runs are resumed."
        raise SettingError("data.source", url, problem, remedy) from error
    if len(data) <= size:
        return data, start
    host = urlsplit(url).netloc
    warnings.warn(
        f"{host} does not serve parts of files: every picture is read with its whole shard. "
        "Set data.shard_cache to as many gigabytes as the shards have.",
        stacklevel=2,
    )
    return data, 0


def _filesystem(url: str) -> tuple[Any, str]:
    """The filesystem of a URL, and the path of the file in it."""
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        problem = f"reading it takes a package that is not installed ({error})"
        raise SettingError("data.source", url, problem, "pip install 'workbench[remote]'") from error
    except ValueError as error:
        remedy = "s3://, gs://, hf:// and https:// work, and what else fsspec knows."
        raise SettingError("data.source", url, str(error), remedy) from error
    return filesystem, path


def _persist(function: Callable[[], _Result]) -> _Result:
    """Call a function, again after a while if the network may have failed, and return its result."""
    for wait in WAITS:
        try:
            return function()
        except Exception as error:  # every filesystem raises its own
            if _is_final(_origin(error)):
                raise
            time.sleep(wait)
    return function()


def _origin(error: BaseException) -> BaseException:
    """The original error, because fsspec reports "no such file" for every server that it cannot reach."""
    cause = error.__cause__
    of_network = isinstance(cause, TimeoutError) or type(cause).__module__.startswith("aiohttp")
    return cause if cause and of_network and isinstance(error, FileNotFoundError) else error


def _is_final(error: BaseException) -> bool:
    """Whether a retry would not help."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in (408, 429)
    return isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError))


def _reason(error: BaseException) -> str:
    """An error in a few words."""
    origin = _origin(error)
    status = getattr(origin, "status", None)
    if isinstance(origin, FileNotFoundError) or status in (404, 410):
        return "no such file"
    detail = f"HTTP {status}" if isinstance(status, int) else " ".join(str(origin).split())[:200]
    return f"{type(origin).__name__}: {detail}" if detail else type(origin).__name__
