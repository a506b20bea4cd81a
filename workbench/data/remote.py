"""Files behind a URL that fsspec knows: found, read in ranges or kept whole in a bounded cache, with
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
BLOCK = 8 << 20  # bytes of a range where a file is read from end to end
IN_USE = 300  # seconds since it was last read for which a cached file makes room for no other
LOOK_AGAIN = 60  # seconds after which a file that found no room looks for it again
_LOOKED_FOR_ROOM: dict[Path, float] = {}
_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
# What servers call the version of a file's contents, in the order of trust.
_VERSIONS = ("etag", "content-md5", "md5hash", "blob_id", "last-modified", "lastmodified", "updated", "mtime")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class FileState(NamedTuple):
    """A remote file as it was when it was looked at; `version` is whatever the server says of its
    contents."""

    url: str
    size: int
    version: str


def is_remote(source: str | os.PathLike[str]) -> bool:
    """Whether a source is a URL."""
    return _URL.match(os.fspath(source)) is not None


def list_files(url: str, base: str, pattern: bool) -> list[str]:
    """The files in a remote folder, or those that a pattern matches, as sorted names below `base`."""
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
    """The state of every file; `SettingError` naming those that cannot be opened."""
    _filesystem(urls[0])  # a package that is missing is no fault of a file

    def state(url: str) -> FileState | str:
        try:
            filesystem, path = _filesystem(url)
            facts = {name.lower(): value for name, value in _persist(lambda: filesystem.info(path)).items()}
        except Exception as error:  # every filesystem raises its own
            return _reason(error)
        if facts["size"] is None:
            return "its server does not say how large it is"
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
    """`size` bytes from `start` on, fewer where the file has ended.

    Raises FileNotFoundError where there is no file any more, and `SettingError` where it cannot be read.
    """
    data, offset = _fetch(url, start, size)
    return data[start - offset :][:size]


def open_remote(state: FileState) -> IO[bytes]:
    """The file as a stream that can seek, read in blocks."""
    return io.BufferedReader(_Ranges(state), BLOCK)


def cached_copy(state: FileState, gigabytes: float) -> Path | None:
    """The whole file in the cache, fetched on the first call; None where there is no room for it.

    All cached files together take at most so many gigabytes (10^9 bytes). Those that were not read for
    longest go first, and those of the last minutes stay: where more files are in use than there is room for,
    the others are better read in ranges than fetched again and again.
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
    """Fetch a file to `path`; False where there is no room for it."""
    if state.size > limit:
        return False
    with atomic_write(path) as copy:
        with cache_lock("shards"):
            copy.truncate(state.size)  # takes its room before other processes look for theirs
            room = _make_room(path.parent, limit)
        if room:
            with open_remote(state) as stream:
                shutil.copyfileobj(stream, copy, BLOCK)
    if not room:
        path.unlink()
    return room


def _make_room(folder: Path, limit: int) -> bool:
    """Delete the files that were not read for longest until the others fit; False if too many are in use."""
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
    """`function` of every item, in order, on as many threads as results are computed ahead."""
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
        self._data, self._offset = b"", 0  # what came last: all of the file from servers that know no ranges

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
    """Bytes of a file, and the place of the first: `start`, or 0 where a server sends the whole file."""
    filesystem, path = _filesystem(url)
    # Filesystems without ranges of their own open the file, and would read ahead.
    options = {} if isinstance(filesystem, AsyncFileSystem) else {"cache_type": "none"}
    try:
        data = _persist(lambda: filesystem.cat_file(path, start=start, end=start + size, **options))
    except FileNotFoundError:
        raise
    except Exception as error:
        if getattr(error, "status", None) == 416:  # the file ends before this range
            return b"", start
        problem = f"it cannot be read ({_reason(error)})"
        remedy = "Check the connection and the access rights, and start again: a run goes on where it was."
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
    """The filesystem of a URL, and what that calls the file."""
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
    """What a function returns, called again after a while where the network may be to blame."""
    for wait in WAITS:
        try:
            return function()
        except Exception as error:  # every filesystem raises its own
            if _is_final(_origin(error)):
                raise
            time.sleep(wait)
    return function()


def _origin(error: BaseException) -> BaseException:
    """What happened: fsspec says "no such file" of every server that it cannot ask."""
    cause = error.__cause__
    of_network = isinstance(cause, TimeoutError) or type(cause).__module__.startswith("aiohttp")
    return cause if cause and of_network and isinstance(error, FileNotFoundError) else error


def _is_final(error: BaseException) -> bool:
    """Whether asking again would not help."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return 400 <= status < 500 and status not in (408, 429)
    return isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError))


def _reason(error: BaseException) -> str:
    """In a few words."""
    origin = _origin(error)
    status = getattr(origin, "status", None)
    if isinstance(origin, FileNotFoundError) or status in (404, 410):
        return "no such file"
    detail = f"HTTP {status}" if isinstance(status, int) else " ".join(str(origin).split())[:200]
    return f"{type(origin).__name__}: {detail}" if detail else type(origin).__name__
