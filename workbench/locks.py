"""Locks on files: one process works, and the others wait and say what they wait for."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from workbench.files import cache_folder

QUIET = 10.0  # seconds of waiting before the first line about it
AGAIN = 60.0  # seconds between two such lines


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
    lock, seconds = FileLock(path), QUIET
    while True:
        try:
            lock.acquire(timeout=seconds)
            break
        except Timeout:
            print(f"waiting for {_holder(path)}, which has the lock {path}", file=sys.stderr, flush=True)
            seconds = AGAIN
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
