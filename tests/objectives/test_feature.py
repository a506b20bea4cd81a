import pytest
import torch

from workbench.objectives import cosine_distillation, feature_distillation


def test_feature_is_twice_cosine() -> None:
    student, teacher = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        feature_distillation(student, teacher), 2 * cosine_distillation(student, teacher)
    )


@pytest.mark.parametrize("width", [2, 64, 768])
def test_does_not_depend_on_the_width(width: int) -> None:
    student, teacher = torch.zeros(2, 3, width, dtype=torch.float64)
    student[:, 0] = 1
    teacher[:, 1] = 1
    assert float(feature_distillation(student, teacher)) == 2
    assert float(cosine_distillation(student, teacher)) == 1


def test_the_message_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="student 64, teacher 128; project the student with the head first"):
        feature_distillation(torch.ones(2, 64), torch.ones(2, 128))
    with pytest.raises(ValueError, match="student 64, teacher 128; project the student with the head first"):
        cosine_distillation(torch.ones(2, 64), torch.ones(2, 128))
