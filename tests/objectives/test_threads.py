"""Pieces of work side by side: their results, torch's number of threads, and losses in shares."""

import threading

import pytest
import torch

from workbench.objectives import DistillationLoss
from workbench.objectives.threads import each_on_a_thread, thread_count


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_pieces_run_side_by_side_and_share_the_threads() -> None:
    both = threading.Barrier(2, timeout=20)  # broken unless the two meet

    def piece(number: int) -> tuple[int, int, bool]:
        both.wait()
        return number, torch.get_num_threads(), torch.is_grad_enabled()

    assert each_on_a_thread(piece, [5, 3]) == [(5, 2, False), (3, 2, False)]
    assert torch.get_num_threads() == 4 and torch.is_grad_enabled()


def test_a_piece_does_its_own_pieces_alone() -> None:
    def inner(number: int) -> tuple[int, str]:
        return number, threading.current_thread().name

    def outer(number: int) -> bool:
        assert thread_count(torch.device("cpu"), 100) == 1
        return each_on_a_thread(inner, [1, 2]) == [
            (inner_number, threading.current_thread().name) for inner_number in (1, 2)
        ]

    assert each_on_a_thread(outer, [1, 2]) == [True, True]


def test_threads_come_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError):
        each_on_a_thread(lambda number: 1 // number, [0, 1])
    assert torch.get_num_threads() == 4
    assert thread_count(torch.device("cpu"), 3) == 3 and thread_count(torch.device("meta"), 3) == 1


@pytest.mark.parametrize("rows", [None, slice(100, 390)])
def test_losses_in_shares_are_the_dense_ones(rows: slice | None) -> None:
    """Of 390 rows, four threads take 64 at a time each; the last has fewer."""
    generator = torch.Generator().manual_seed(0)
    sides = [torch.randn(390, 6, generator=generator, dtype=torch.float64) for _ in range(4)]
    results = []
    for chunk in (None, 256):
        leaves = [side.clone().requires_grad_() for side in sides]
        scales = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (14.0, 9.0)]
        mixture = DistillationLoss({"task": 1.0, "crd": 0.5, "icl": 0.7}, 6, 6, chunk=chunk).double()
        loss, terms = mixture(*leaves[:2], *leaves[:2], scales[0], *leaves[2:], scales[1], rows=rows)
        loss.backward()
        results.append([*terms.values(), *(leaf.grad for leaf in (*leaves, *scales, *mixture.parameters()))])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)
