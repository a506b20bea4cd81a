import pytest
import torch

from tests.objectives import slow
from workbench.objectives import contrastive_loss, gradient_distillation
from workbench.objectives.gradient import info_nce_gradients
from workbench.objectives.similarity import unit


def pair(batch: int = 6, width: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return list(unit(*torch.randn(2, batch, width, generator=generator, dtype=torch.float64)))


def test_they_are_the_gradients_that_autograd_finds() -> None:
    image, text = (item.requires_grad_() for item in pair())
    result = info_nce_gradients(image, text, 20.0)
    # The direction image -> text alone: the loss with respect to the logits' rows, on embeddings as they are.
    positives = torch.arange(len(image))
    for query, key, (of_query, of_key) in ((image, text, result[:2]), (text, image, result[2:])):
        loss = torch.nn.functional.cross_entropy(20.0 * query @ key.T, positives)
        expected = torch.autograd.grad(loss, (query, key))
        torch.testing.assert_close(of_query, expected[0], rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(of_key, expected[1], rtol=1e-10, atol=1e-14)
    # Half their sum is the gradient of the symmetric loss, along the sphere.
    total = torch.autograd.grad(contrastive_loss(image, text, 20.0), image)[0]
    ours = (result[0] + result[3]) / 2
    torch.testing.assert_close(ours - (ours * image).sum(1, keepdim=True) * image, total)


def test_the_absolute_distance_is_a_plain_sum() -> None:
    sides = [slow.wave(5, 4, phase) for phase in (1.7, 2.2, 0.1, 0.9)]
    value = gradient_distillation(*sides, 10.0, 14.0, relative=False)
    assert float(value) == pytest.approx(182.01830014181655, rel=1e-12)


def test_a_student_without_gradient_costs_one() -> None:
    teacher = pair()
    solved = [torch.eye(6, dtype=torch.float64)] * 2
    padded = [torch.nn.functional.pad(item, (0, 2)) for item in teacher]
    assert float(gradient_distillation(*solved, *padded, 1000.0, 5.0)) == pytest.approx(1.0)


def test_a_student_like_its_teacher_costs_nothing() -> None:
    teacher = pair()
    assert float(gradient_distillation(*teacher, *teacher, 10.0, 10.0)) == 0
    assert float(gradient_distillation(*teacher, *teacher, 10.0, 11.0)) > 1e-4


def test_a_batch_of_one_has_no_gradient_to_copy() -> None:
    for relative in (True, False):
        assert float(gradient_distillation(*pair(1), *pair(1), 10.0, 20.0, relative)) == 0


def test_float32_sees_the_gradient_of_a_batch_that_is_nearly_solved() -> None:
    """1 - p would round to 0 or to 6e-8 where the wrong answers' probabilities are 1e-9."""
    image = torch.eye(8, dtype=torch.float64)
    text = unit(image + 0.02 * torch.randn(8, 8, generator=torch.Generator().manual_seed(0)).double())[0]
    double = info_nce_gradients(image, text, 20.0)
    single = info_nce_gradients(image.float(), text.float(), 20.0)
    for coarse, fine in zip(single, double, strict=True):
        torch.testing.assert_close(coarse.double(), fine, rtol=1e-3, atol=1e-4 * float(fine.abs().max()))
