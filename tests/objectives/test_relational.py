import pytest
import torch

from tests.objectives import slow
from workbench.objectives import relational_distillation


@pytest.mark.parametrize("widths", [(3, 8), (8, 3), (1, 5)])
def test_any_two_widths(widths: tuple[int, int]) -> None:
    student = slow.wave(4, widths[0], 0.3), slow.wave(4, widths[0], 0.8)
    teacher = slow.wave(4, widths[1], 0.1), slow.wave(4, widths[1], 0.5)
    expected = slow.relational_distillation(*student, *teacher, 5.0, 20.0)
    assert float(relational_distillation(*student, *teacher, 5.0, 20.0)) == pytest.approx(expected, rel=1e-12)


def test_a_student_like_its_teacher_costs_nothing_and_learns_nothing() -> None:
    image, text = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    student = image.clone().requires_grad_()
    value = relational_distillation(student, text, image, text, 10.0, 10.0)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-15)
    assert float(student.grad.abs().max()) < 1e-15
    assert float(relational_distillation(image, text, image, text, 10.0, 20.0)) > 1e-3


def test_it_is_the_teacher_who_weighs() -> None:
    """KL(teacher || student), not the reverse: a certain teacher punishes an undecided student."""
    pair = torch.eye(2, dtype=torch.float64)
    certain_teacher = relational_distillation(pair, pair, pair, pair, 1.0, 50.0)
    certain_student = relational_distillation(pair, pair, pair, pair, 50.0, 1.0)
    assert float(certain_teacher) == pytest.approx(0.31326, abs=1e-5)  # ln(1 + e^-1)
    assert float(certain_student) == pytest.approx(12.86, abs=0.1)
