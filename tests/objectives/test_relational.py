import math

import pytest
import torch

from tests.objectives import slow
from workbench.objectives import image_relations, relational_distillation


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


def test_image_relations_by_hand() -> None:
    """KL over the other images, each row by itself, any two widths; rows add up."""
    student, teacher = slow.wave(5, 3, 0.3), slow.wave(5, 7, 0.1)
    ours, theirs = (torch.nn.functional.normalize(side, dim=1) for side in (student, teacher))
    expected = 0.0
    for query in range(5):
        others = [key for key in range(5) if key != query]
        p, q = ([math.exp(20 * float(side[query] @ side[key])) for key in others] for side in (theirs, ours))
        p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
        expected += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)) / 5
    value = image_relations(student, teacher, 20.0)
    assert float(value) == pytest.approx(expected, rel=1e-9)
    parts = [image_relations(student, teacher, 20.0, rows=rows) for rows in (slice(0, 2), slice(2, 5))]
    assert float(sum(parts)) == pytest.approx(expected, rel=1e-9)


def test_image_relations_of_like_images_and_of_one() -> None:
    image = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    value = image_relations(image, image.detach() * 3, 14.0)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert float(image.grad.abs().max()) < 1e-5
    assert image_relations(image[:1], image[1:2], 14.0).item() == 0
