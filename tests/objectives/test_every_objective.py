"""What holds for every objective: value, gradients, any norm, any precision, any division into rows."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from tests.objectives import slow
from workbench import objectives

BATCH = 5


class Case(NamedTuple):
    name: str
    widths: tuple[int, ...]  # of the embeddings it takes
    scales: tuple[float, ...]  # it takes after them
    golden: float  # for `waves`, by an independent program in numpy
    phases: tuple[float, ...]
    targets: int = 0  # how many of the embeddings, the last ones, are taken as they are
    maps: tuple[Tensor, ...] = ()  # of the linear maps it takes between embeddings and scales

    @property
    def students(self) -> int:
        return len(self.widths) - self.targets if self.targets else len(self.widths) // 2

    @property
    def loss(self) -> Callable[..., Tensor]:
        maps = [lambda x, weight=weight: x @ weight.T.to(x.dtype) for weight in self.maps]
        return self._with(getattr(objectives, self.name), maps)

    @property
    def slow(self) -> Callable[..., float]:
        return self._with(getattr(slow, self.name), self.maps)

    def _with(self, loss: Callable, maps: Sequence) -> Callable:
        count = len(self.widths)
        return lambda *given, **options: loss(*given[:count], *maps, *given[count:], **options)


CASES = [
    Case("contrastive_loss", (3, 3), (10.0,), 0.1465560360104094, (0.0, 0.4)),
    Case("relational_distillation", (3, 3, 4, 4), (10.0, 14.0), 2.2507962087609834, (0.0, 0.4, 0.1, 0.9)),
    Case("feature_distillation", (4, 4), (), 1.9909182830783934, (1.7, 0.1)),
    Case("cosine_distillation", (4, 4), (), 0.9954591415391967, (1.7, 0.1)),
    Case("interactive_contrastive_loss", (4, 4, 4, 4), (7.0,), 5.548238457494209, (1.7, 2.2, 0.1, 0.9)),
    Case("gradient_distillation", (4, 4, 4, 4), (10.0, 14.0), 0.979730481485364, (1.7, 2.2, 0.1, 0.9)),
    Case(
        "fused_contrastive_loss",
        (3, 3, 4, 4),
        (7.0,),
        0.031858379996905745,
        (0.0, 0.4, 0.1, 0.9),
        maps=(slow.wave(5, 7, 0.3), slow.wave(5, 7, 1.1)),
    ),
    Case("embedding_regression", (3, 4), (), 0.9103300297733524, (0.0, 0.4), 1, (slow.wave(4, 3, 0.6),)),
    Case("concept_loss", (3, 3, 4), (), 1.6442010219585803, (0.0, 0.4, 0.2), 1, (slow.wave(4, 3, 0.6),)),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def waves(case: Case) -> list[Tensor]:
    made = [slow.wave(BATCH, width, phase) for width, phase in zip(case.widths, case.phases, strict=True)]
    return [*made[:-1], made[-1].softmax(1)] if case.name == "concept_loss" else made


def noise(case: Case, batch: int = BATCH, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(batch)
    embeddings = [
        torch.randn(batch, width, generator=generator, dtype=torch.float64) for width in case.widths
    ]
    return [entry.to(dtype).requires_grad_() for entry in embeddings]


def scales(case: Case, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [torch.tensor(scale, dtype=dtype, requires_grad=True) for scale in case.scales]


def test_equals_golden_value(case: Case) -> None:
    assert float(case.loss(*waves(case), *case.scales)) == pytest.approx(case.golden, rel=1e-12)


@pytest.mark.parametrize("batch", [2, 7])
def test_equals_slow_version(case: Case, batch: int) -> None:
    embeddings = noise(case, batch)
    expected = case.slow(*embeddings, *case.scales)
    value = case.loss(*embeddings, *case.scales)
    assert value.shape == () and value.dtype == torch.float64
    assert value.item() == pytest.approx(expected, rel=1e-12)
    single = case.loss(*noise(case, batch, torch.float32), *case.scales)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=1e-4)


def test_gradients(case: Case) -> None:
    assert gradcheck(case.loss, (*noise(case), *scales(case)))


def test_float32_gradients(case: Case) -> None:
    single, double = (
        [*noise(case, dtype=dtype), *scales(case, dtype)] for dtype in (torch.float32, torch.float64)
    )
    case.loss(*single).backward()
    case.loss(*double).backward()
    for coarse, fine in zip(single, double, strict=True):
        assert fine.grad.abs().max().item() > 1e-4  # reaches every embedding and every scale
        torch.testing.assert_close(coarse.grad.double(), fine.grad, rtol=1e-4, atol=1e-5)


def test_teacher_without_gradient_gets_none(case: Case) -> None:
    embeddings = noise(case)
    for teacher in embeddings[case.students :]:
        teacher.requires_grad_(False)
    case.loss(*embeddings, *case.scales).backward()
    assert all(entry.grad is not None for entry in embeddings[: case.students])
    assert all(entry.grad is None for entry in embeddings[case.students :])


def test_any_norm(case: Case) -> None:
    embeddings = [entry.detach() for entry in noise(case)]
    expected = case.loss(*embeddings, *case.scales)
    for factor in (1e-30, 3.0, 1e30):
        free = len(embeddings) - case.targets
        stretched = [(factor * entry).float() for entry in embeddings[:free]]
        stretched += [entry.float() for entry in embeddings[free:]]
        torch.testing.assert_close(
            case.loss(*stretched, *case.scales), expected.float(), rtol=1e-4, atol=1e-6
        )


def test_order_of_the_batch_does_not_matter(case: Case) -> None:
    embeddings = noise(case)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        case.loss(*[entry[order] for entry in embeddings], *case.scales), case.loss(*embeddings, *case.scales)
    )


@pytest.mark.parametrize("cuts", [[0, 5], [0, 2, 5], [0, 1, 1, 3, 5]])
def test_rows_add_up(case: Case, cuts: list[int]) -> None:
    whole = [*noise(case), *scales(case)]
    parts = [*noise(case), *scales(case)]
    value = case.loss(*whole)
    value.backward()
    shares = [case.loss(*parts, rows=slice(a, b)) for a, b in pairwise(cuts)]
    sum(shares).backward()
    torch.testing.assert_close(sum(shares), value, rtol=1e-12, atol=1e-12)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-12)


def test_rows_cost_their_share_only(case: Case) -> None:
    if case.name == "gradient_distillation":
        return  # the gradients of any rows take the softmax of all
    embeddings = noise(case, 64)
    largest = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest.append(result.numel())
            return result

    with Watch():
        case.loss(*embeddings, *case.scales, rows=slice(8, 12))
    widest = max(4, sum(case.widths) // 2)  # student and teacher side by side
    assert max(largest) <= widest * 64  # n x batch logits, or batch x width entries


@pytest.mark.parametrize("scale", [1.0, 100.0, 1000.0])
def test_batch_of_one(case: Case, scale: float) -> None:
    embeddings = noise(case, 1)
    value = case.loss(*embeddings, *[scale for _ in case.scales])
    value.backward()
    assert value.item() == pytest.approx(case.slow(*embeddings, *[scale for _ in case.scales]), abs=1e-12)
    assert all(entry.grad.isfinite().all() for entry in embeddings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scale_of_a_thousand(case: Case, dtype: torch.dtype) -> None:
    embeddings = noise(case, dtype=dtype)
    thousand = [torch.tensor(1000.0, dtype=dtype, requires_grad=True) for _ in case.scales]
    value = case.loss(*embeddings, *thousand)
    value.backward()
    expected = case.slow(*[entry.double() for entry in embeddings], *[1000.0 for _ in case.scales])
    assert value.item() == pytest.approx(expected, rel=1e-4 if dtype == torch.float32 else 1e-12)
    assert all(entry.grad.isfinite().all() for entry in (*embeddings, *thousand))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_zero_rows_and_duplicates_are_finite(case: Case, dtype: torch.dtype) -> None:
    embeddings = [entry.detach() for entry in noise(case, dtype=dtype)]
    for entry in embeddings:
        entry[1] = 0
        entry[3] = entry[2]
        entry.requires_grad_()
    value = case.loss(*embeddings, *case.scales)
    value.backward()
    assert value.isfinite()
    assert all(entry.grad.isfinite().all() and entry.grad.abs().max() < 100 for entry in embeddings)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(case: Case, dtype: torch.dtype) -> None:
    embeddings = noise(case, 7, dtype)
    value = case.loss(*embeddings, *case.scales)
    value.backward()
    assert value.dtype == torch.float32
    expected = case.slow(*[entry.double() for entry in embeddings], *case.scales)
    assert value.item() == pytest.approx(expected, rel=1e-4)
    assert all(entry.grad.dtype == dtype and entry.grad.isfinite().all() for entry in embeddings)


def test_autocast_does_not_coarsen(case: Case) -> None:
    embeddings = noise(case, 7, torch.float32)
    plain = case.loss(*embeddings, *case.scales)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(case.loss(*embeddings, *case.scales), plain)


def test_batch_sizes_must_agree(case: Case) -> None:
    first, *others = noise(case)
    with pytest.raises(ValueError, match=r"4.*5"):
        case.loss(first[:4], *others, *case.scales)
    with pytest.raises(ValueError, match="at least 1"):
        case.loss(*[entry[:0] for entry in (first, *others)], *case.scales)


def test_widths_must_agree(case: Case) -> None:
    if case.name == "embedding_regression":
        return  # the head says itself which width it takes
    first, *others = noise(case)
    wide = torch.cat([first, first], dim=1)
    with pytest.raises(ValueError, match=f"{case.name}: .*{wide.shape[1]}.*{case.widths[0]}"):
        case.loss(wide, *others, *case.scales)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_learned_part_may_be_of_another_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    image, text, target = torch.randn(6, 4), torch.randn(6, 4), torch.randn(6, 3)
    head, fuse, classifier = torch.nn.Linear(4, 3), torch.nn.Linear(8, 4), objectives.ConceptClassifier(4, 3)
    labels = torch.softmax(target, dim=1)
    plain = (
        objectives.embedding_regression(text, target, head),
        objectives.fused_contrastive_loss(image, text, image, text, fuse, fuse, 5.0),
        objectives.concept_loss(image, text, labels, classifier),
    )
    for module in (head, fuse, classifier):
        module.to(dtype)
    other = (
        objectives.embedding_regression(text, target, head),
        objectives.fused_contrastive_loss(image, text, image, text, fuse, fuse, 5.0),
        objectives.concept_loss(image, text, labels, classifier),
    )
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    for one, another in zip(plain, other, strict=True):
        assert another.dtype == torch.float32
        torch.testing.assert_close(one, another, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("chunk", [0, -2, 2.5, True])
def test_a_chunk_is_a_whole_number(chunk: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"chunk"):
        objectives.contrastive_loss(torch.eye(3), torch.eye(3), 1, chunk=chunk)
