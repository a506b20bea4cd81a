"""Where the workbench keeps what it computes, and how it writes files that survive a crash."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filelock import FileLock


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
    path.parent.mkdir(parents=True, exist_ok=True)
    # The process id keeps two processes that write the same file out of each other's half-written one.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    encoding = None if "b" in mode else "utf-8"
    try:
        with open(partial, mode, encoding=encoding) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def cache_lock(key: str) -> "FileLock":
    """A lock for what one process makes in the cache while the others wait, for hours if need be.

    A file, and not a barrier of the process group, which gives up after minutes: the system lets go of it
    when its holder dies.
    """
    from filelock import FileLock

    folder = cache_folder("locks")
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{key}.lock")


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
    """The JSON in `path`."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


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


def carried(folder: str) -> Path:
    """A folder of the repository such as `notebooks`: the copy in an installed wheel, or the checkout's."""
    package = Path(__file__).parent
    copy = package / folder
    return copy if copy.is_dir() else package.parent / folder
