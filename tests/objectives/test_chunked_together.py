"""The task loss and CRD together are the two of them, for fewer matrix products."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from workbench.objectives import DistillationLoss, contrastive_loss, relational_distillation
from workbench.objectives.chunked import contrastive_and_relational

WEIGHTS = (0.7, 1.9)
SCALES = (10.0, 14.0)


def inputs(learns: bool = True) -> list[Tensor]:
    """Student's embeddings of width 3, the teacher's of width 4, and the scales."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(7, width, generator=generator, dtype=torch.float64) for width in (3, 3, 4, 4)]
    made += [torch.tensor(scale, dtype=torch.float64) for scale in SCALES]
    return [item.requires_grad_(learns) for item in made]


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("rows", [None, slice(2, 5), slice(4, 4)])
def test_same_values_and_gradients(chunk: int, rows: slice | None) -> None:
    apart, together = inputs(), inputs()
    task = contrastive_loss(*apart[:2], apart[4], rows=rows)
    crd = relational_distillation(*apart, rows=rows)
    total = WEIGHTS[0] * task + WEIGHTS[1] * crd
    weighted, *values = contrastive_and_relational(*together, WEIGHTS, rows=rows, chunk=chunk)
    for result, expected in zip((weighted, *values), (total, task, crd), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-14)
    assert not any(value.requires_grad for value in values)
    (3 * total).backward()
    (3 * weighted).backward()
    for ours, theirs in zip(together, apart, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12)


def products(loss: object) -> int:
    """Matrix products of a forward and a backward pass where the student learns and the teacher does not."""
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm_))
            return function(*args, **(kwargs or {}))

    student, teacher, scale = inputs()[:2], inputs(learns=False)[2:4], inputs()[4]
    with Watch():
        loss(*student, *teacher, scale, 14.0).backward()
    return sum(seen)


def test_the_student_s_logits_are_made_for_both() -> None:
    def together(*given: object) -> Tensor:
        return contrastive_and_relational(*given, WEIGHTS, chunk=7)[0]

    def apart(*given: object) -> Tensor:
        task = contrastive_loss(*given[:2], given[4], chunk=7)
        return task + relational_distillation(*given, chunk=7)

    # Logits of both sides for the columns' norms and once more, then the pulls of queries and of keys.
    assert products(together) == 6
    assert products(apart) == 10


def test_a_mixture_in_chunks_has_the_gradients_of_the_whole() -> None:
    torch.manual_seed(0)
    mixture = DistillationLoss({"task": 0.7, "fd": 2.0, "crd": 1.9, "icl": 0.4}, 3, 4).double()
    image, text, teacher_image, teacher_text, scale, _ = inputs()
    result = []
    for chunk in (None, 2):
        mixture.chunk = chunk
        learners = [image, text, scale, *mixture.parameters()]
        total, terms = mixture(
            image, text, *mixture.project(image, text), scale, teacher_image, teacher_text, 14.0
        )
        assert list(terms) == ["task", "fd", "crd", "icl"]
        result.append([*torch.autograd.grad(total, learners), *(value.detach() for value in terms.values())])
    for whole, part in zip(*result, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-8, atol=1e-12)


def test_sizes_that_disagree_are_refused() -> None:
    image, text, theirs, _, *scales = inputs()
    with pytest.raises(ValueError, match="contrastive_and_relational: expects one batch size"):
        contrastive_and_relational(image, text[:4], theirs, theirs, *scales, WEIGHTS, chunk=2)
    with pytest.raises(ValueError, match="expects equal widths, got teacher_image 4, teacher_text 3"):
        contrastive_and_relational(image, text, theirs, text, *scales, WEIGHTS, chunk=2)
    with pytest.raises(ValueError, match="chunk = 0"):
        contrastive_and_relational(image, text, theirs, theirs, *scales, WEIGHTS, chunk=0)
