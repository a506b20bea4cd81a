"""Where the workbench keeps what it computes, how it writes files that survive a crash, and locks on them."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def cache_folder(*parts: str) -> Path:
    """The folder for things that can be made again: `$WORKBENCH_CACHE`, else the user's cache folder."""
    chosen = os.environ.get("WORKBENCH_CACHE")
    if chosen:
        root = Path(chosen).expanduser()
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "workbench"
    return root.joinpath(*parts)


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears under its name whole or not at all, on disk when the block ends."""
    path = Path(path)
    # The process id keeps two processes that write the same file out of each other's half-written one.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    encoding = None if "b" in mode else "utf-8"
    try:
        with disk_errors_name(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, mode, encoding=encoding) as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Fill an empty folder beside `folder`, whose files appear in `folder` once the block ends; none where it
    fails.

    Files of the same names are replaced, others in `folder` stay.
    """
    folder = Path(folder).absolute()
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        with disk_errors_name(folder):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            if folder.exists():
                for path in sorted(partial.iterdir()):
                    os.replace(path, folder / path.name)
            else:
                os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    sync_folder(folder.parent)


@contextlib.contextmanager
def disk_errors_name(path: Path) -> Iterator[None]:
    """Name `path` in the error of a disk that is full, read-only or broken, whichever library raised it.

    What was written so far should still be there when the block ends: it is what a full disk is full of.
    """
    try:
        yield
    except Exception as error:
        number = _disk_error(error, path)
        if number is None or (isinstance(error, OSError) and str(error.filename) == str(path)):
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG)
PROBE = 1 << 18  # bytes: more than a library keeps in its buffer


def _disk_error(error: BaseException, path: Path) -> int | None:
    """The system's number of the disk error behind an error, None where a disk is not at fault.

    NumPy's short writes, torch's RuntimeError and safetensors' SafetensorError have no number of their own:
    it is that of the error they came from, stands in their text, or shows when more is written.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in DISK_ERRORS else None
    if not isinstance(error, OSError | RuntimeError) and type(error).__name__ != "SafetensorError":
        return None
    origin = error.__cause__ or error.__context__
    if origin is not None and (number := _disk_error(origin, path)) is not None:
        return number
    if match := re.search(r"os error (\d+)", str(error)):
        return int(match[1]) if int(match[1]) in DISK_ERRORS else None
    return _refused_by_disk(path)


def _refused_by_disk(path: Path) -> int | None:
    """The system's number of the error with which a file beside `path` cannot be written, None if it can."""
    folder = next((folder for folder in path.absolute().parents if folder.is_dir()), None)
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(bytes(PROBE))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.errno if error.errno in DISK_ERRORS else None
    return None


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable; a no-op where folders cannot be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path, "w") as stream:
        json.dump(value, stream, indent=2, ensure_ascii=False, default=str)
        stream.write("\n")


def read_json(path: Path) -> Any:
    """The JSON in `path`; ValueError for anything else, OSError where it cannot be read."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_arrays(path: Path) -> "dict[str, np.ndarray]":
    """The arrays of an .npz, without pickles; ValueError where it is damaged, OSError where it cannot be
    read."""
    import numpy as np

    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return dict(arrays)
    except OSError:
        raise
    except Exception as error:  # zipfile, zlib and struct each have errors of their own
        raise ValueError(f"it is no archive of arrays ({type(error).__name__}: {error})") from None


def signed(value: Mapping[str, Any], keys: Sequence[str] | None = None) -> dict[str, Any]:
    """A JSON object with a digest of itself, or of what is under `keys`, by which `unsigned` sees later
    damage."""
    part = value if keys is None else {key: value.get(key) for key in keys}
    digest = sha256_of_json(json.loads(json.dumps(part, default=str)))
    return {**value, "signature": {"of": None if keys is None else list(keys), "sha256": digest}}


def unsigned(value: Any) -> Any:
    """What was `signed`, without its digest; ValueError where they do not fit. Other JSON is left as it
    is."""
    if not isinstance(value, dict) or "signature" not in value:
        return value
    plain = {key: item for key, item in value.items() if key != "signature"}
    try:
        keys, digest = value["signature"]["of"], value["signature"]["sha256"]
        part = plain if keys is None else {key: plain.get(key) for key in keys}
    except (KeyError, TypeError):
        raise ValueError("its signature cannot be read") from None
    if sha256_of_json(part) != digest:
        raise ValueError("its sha256 is not the one that it was written with")
    return plain


def sha256_of_file(path: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_json(value: object) -> str:
    """Hex digest of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256_of_strings(strings: Iterable[str]) -> str:
    """`sha256_of_json` of the list of these strings, which is never made."""
    digest, separator = hashlib.sha256(b"["), b""
    for text in strings:
        digest.update(separator + json.dumps(text).encode())
        separator = b","
    digest.update(b"]")
    return digest.hexdigest()


def is_file_name(text: str) -> bool:
    """Whether a file can be called so: no path, nothing hidden or unprintable, room left for a suffix."""
    try:
        short = len(text.encode()) <= LONGEST_NAME
    except UnicodeEncodeError:
        return False
    plain = text.isprintable() and text == text.strip() and not set(text) & set("/\\")
    return short and plain and bool(text.strip(".")) and not text.startswith(("-", "."))


def can_be_path(text: str) -> bool:
    """Whether a file system takes a text for a path: no NUL, no half characters, not too long."""
    try:
        os.lstat(text)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return True
    except (OSError, ValueError):
        return False
    return True


LONGEST_NAME = 180  # bytes; file systems have 255


def carried(folder: str) -> Path:
    """A folder of the repository such as `notebooks`: the copy in an installed wheel, or the checkout's."""
    package = Path(__file__).parent
    copy = package / folder
    return copy if copy.is_dir() else package.parent / folder


QUIET_WAIT = 10.0  # seconds of waiting before the first line about it
NEXT_LINE = 60.0  # seconds between two such lines


@contextlib.contextmanager
def cache_lock(key: str) -> Iterator[None]:
    """A lock for what one process makes in the cache while the others wait, for hours if need be.

    A file, and not a barrier of the process group, which gives up after minutes: the system lets go of it
    when its holder dies.
    """
    with file_lock(cache_folder("locks") / f"{key}.lock"):
        yield


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """The lock on a file, which is made if need be. A process that waits long prints which process has it."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock, seconds = FileLock(path), QUIET_WAIT
    while True:
        try:
            lock.acquire(timeout=seconds)
            break
        except Timeout:
            print(f"waiting for {_holder(path)}, which has the lock {path}", file=sys.stderr, flush=True)
            seconds = NEXT_LINE
    try:
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """The process that has the lock on a file, in words; "another process" where Linux does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = os.stat(path)
        file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, *_, process, place, _, _ = line.split()
            if (kind, place) == ("FLOCK", file) and int(process) > 0:
                state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
                is_stopped = state in "Tt"
                return f"process {process}" + (f" (stopped; `kill -CONT {process}` wakes it)" * is_stopped)
    return "another process"
