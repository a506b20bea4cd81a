"""The chunked forms are the dense ones, in less memory."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from workbench import objectives


class Case(NamedTuple):
    name: str
    widths: tuple[int, ...]
    scales: tuple[float, ...]

    @property
    def loss(self) -> Callable[..., Tensor]:
        return getattr(objectives, self.name)

    def inputs(self, batch: int = 7, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        made = [torch.randn(batch, width, generator=generator, dtype=torch.float64) for width in self.widths]
        made += [torch.tensor(scale, dtype=torch.float64) for scale in self.scales]
        return [entry.to(dtype).requires_grad_() for entry in made]


CASES = [
    Case("contrastive_loss", (3, 3), (10.0,)),
    Case("relational_distillation", (3, 3, 4, 4), (10.0, 14.0)),
    Case("interactive_contrastive_loss", (4, 4, 4, 4), (7.0,)),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("rows", [None, slice(0, 7), slice(2, 5), slice(3, None), slice(4, 4)])
def test_same_value_and_gradients(case: Case, chunk: int, rows: slice | None) -> None:
    dense, chunked = case.inputs(), case.inputs()
    expected = case.loss(*dense, rows=rows)
    value = case.loss(*chunked, rows=rows, chunk=chunk)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-14)
    (3 * expected).backward()
    (3 * value).backward()
    for ours, theirs in zip(chunked, dense, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 6])
def test_safe_at_any_scale(case: Case, scale: float, dtype: torch.dtype, batch: int) -> None:
    dense = case._replace(scales=tuple(scale for _ in case.scales)).inputs(batch)
    chunked = [entry.detach().to(dtype).requires_grad_() for entry in dense]
    expected, value = case.loss(*dense), case.loss(*chunked, chunk=2)
    expected.backward()
    value.backward()
    # A teacher's gradient is a difference of numbers as large as the scale, times the scale.
    double = dtype == torch.float64
    loose = {"rtol": 1e-8 if double else 1e-4, "atol": max(1e-12, (1e-14 if double else 1e-7) * scale**2)}
    torch.testing.assert_close(value.double(), expected, **loose)
    for ours, theirs in zip(chunked, dense, strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, **loose)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(case: Case, dtype: torch.dtype) -> None:
    embeddings = case.inputs(dtype=dtype)[: len(case.widths)]
    with torch.autocast("cpu", torch.bfloat16):
        value = case.loss(*embeddings, *case.scales, chunk=2)
    value.backward()
    assert value.dtype == torch.float32
    exact = case.loss(*[entry.detach().double() for entry in embeddings], *case.scales)
    assert value.item() == pytest.approx(exact.item(), rel=1e-4)
    assert all(entry.grad.dtype == dtype and entry.grad.isfinite().all() for entry in embeddings)


def test_only_what_asks_gets_a_gradient(case: Case) -> None:
    inputs = [entry.detach() for entry in case.inputs()]
    for number in range(len(inputs)):
        inputs[number].requires_grad_()
        case.loss(*inputs, chunk=3).backward()
        dense = [entry.detach() for entry in inputs]
        dense[number].requires_grad_()
        case.loss(*dense).backward()
        torch.testing.assert_close(inputs[number].grad, dense[number].grad)
        inputs[number] = inputs[number].detach()
    assert not case.loss(*inputs, chunk=3).requires_grad


def test_gradcheck(case: Case) -> None:
    assert gradcheck(lambda *inputs: case.loss(*inputs, chunk=2), case.inputs(4))


def test_memory_is_a_chunks(case: Case) -> None:
    largest = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest.append(result.numel())
            return result

    with Watch():
        case.loss(*case.inputs(256), chunk=8).backward()
    assert max(largest) == 8 * 256
    with Watch():
        case.loss(*case.inputs(256)).backward()
    assert max(largest) == 256 * 256


def test_a_chunk_of_nothing_is_refused(case: Case) -> None:
    for chunk in (0, -4):
        with pytest.raises(ValueError, match=f"{case.name}: chunk = {chunk}, .*1 or more"):
            case.loss(*case.inputs(), chunk=chunk)
