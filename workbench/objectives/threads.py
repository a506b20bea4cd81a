"""Runs CPU work in a few large pieces with a thread each, instead of many short parallel regions.

Within one operation all threads wait for the slowest. If other programs use the cores too, that one waits for
its turn, some milliseconds each time. A piece with many operations waits once.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_Piece = TypeVar("_Piece")
_Result = TypeVar("_Result")
_TORCH_THREADS = threading.Lock()  # one number for the whole process
_THREAD = threading.local()


def each_on_a_thread(function: Callable[[_Piece], _Result], pieces: Sequence[_Piece]) -> list[_Result]:
    """The results of `function` for every piece, in order, computed without gradients.

    A single piece is computed in this thread, by as many threads as torch has. Several pieces run side by
    side in a thread each, and share torch's threads.
    """
    if len(pieces) < 2 or hasattr(_THREAD, "works"):
        with torch.no_grad():
            return [function(piece) for piece in pieces]

    @torch.no_grad()  # here too: a new thread has gradients on, whatever its starter has
    def run(piece: _Piece) -> _Result:
        _THREAD.works = True
        return function(piece)

    with _TORCH_THREADS:
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // len(pieces)))
        try:
            with ThreadPoolExecutor(len(pieces)) as pool:
                return list(pool.map(run, pieces))
        finally:
            torch.set_num_threads(threads)


def thread_count(device: torch.device, most: int) -> int:
    """The number of pieces, at most `most`, to divide work into: torch's threads on a CPU, otherwise one."""
    alone = device.type != "cpu" or hasattr(_THREAD, "works")
    return 1 if alone else max(1, min(torch.get_num_threads(), most))
