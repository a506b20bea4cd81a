"""Kills a function at each of its file operations in turn, for tests of what survives.

To be used in a process of its own, without threads: it forks.
"""

import os
import signal
import sys
from collections.abc import Callable

_CHANGES = {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}


class Fuse:
    """Counts what passes and kills the process, beyond any `finally`, when `length` things have passed."""

    def __init__(self, length: int) -> None:
        self.left = length

    def burn(self, last_words: Callable[[], object] = lambda: None) -> None:
        if self.left == 0:
            last_words()
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def kill_everywhere(
    folder: str,
    prepare: Callable[[], object],
    operation: Callable[[], object],
    check: Callable[[int], object],
    arm: Callable[[Fuse], object] = lambda fuse: None,
) -> int:
    """Kill `operation` at its first, second, ... file operation in `folder` until it lives to its end.

    `prepare()` comes before each attempt, `check(attempt)` after; `arm(fuse)` may add kill points of its own.
    Returns how often it was killed.
    """
    attempt = 0
    while True:
        prepare()
        child = os.fork()
        if child == 0:
            fuse = Fuse(attempt)
            _arm(fuse, folder)
            arm(fuse)
            operation()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        check(attempt)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, "the operation failed by itself"
            return attempt
        assert os.WTERMSIG(status) == signal.SIGKILL
        attempt += 1


def _arm(fuse: Fuse, folder: str) -> None:
    """Let every operation that changes files burn the fuse: each leaves another state behind."""

    def hook(event: str, arguments: tuple) -> None:
        writes = (
            event == "open"
            and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            and str(arguments[0]).startswith(folder)
        )
        if writes or event in _CHANGES:
            fuse.burn()

    sys.addaudithook(hook)
    pwrite = os.pwrite

    def write_half_and_die(handle: int, data: bytes, offset: int) -> int:
        fuse.burn(lambda: pwrite(handle, data[: len(data) // 2], offset))
        return pwrite(handle, data, offset)

    os.pwrite = write_half_and_die
