import pytest
import torch

from workbench.objectives import contrastive_loss, interactive_contrastive_loss


def test_a_student_like_its_teacher_has_the_teachers_task_loss() -> None:
    image, text = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        interactive_contrastive_loss(image, text, image, text, 9.0), contrastive_loss(image, text, 9.0)
    )


def test_the_message_names_all_widths() -> None:
    narrow, wide = torch.ones(2, 64), torch.ones(2, 128)
    with pytest.raises(ValueError, match=r"student_image 64.*teacher_image 128.*head"):
        interactive_contrastive_loss(narrow, narrow, wide, wide, 10.0)
