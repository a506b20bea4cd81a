"""CPU work in a few large pieces with a thread each, in place of many short parallel regions.

Inside one operation all threads wait for the slowest of them. Where other programs use the cores too, that
one waits for its turn, some milliseconds each time. A piece of many operations waits once.
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
    """`function` of every piece, in their order, without gradients.

    One piece is done here, by as many threads as torch has. Several run side by side and share torch's
    threads; what a piece itself would share out, its thread does alone.
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
    """Into how many pieces to divide work that divides into `most`: torch's threads on a CPU, else one."""
    alone = device.type != "cpu" or hasattr(_THREAD, "works")
    return 1 if alone else max(1, min(torch.get_num_threads(), most))
