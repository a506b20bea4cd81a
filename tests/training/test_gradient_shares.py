"""Shares of the gradient are those that autograd finds term by term."""

import pytest
import torch
from torch.nn import functional as F

from workbench.objectives import DistillationLoss, contrastive_loss, feature_distillation
from workbench.training.gradient_shares import gradient_shares
from workbench.training.learner import BatchTargets, Outputs

WEIGHTS = {"task": 1.0, "crd": 1.0, "fd": 4.0, "mfd": 2.0, "gd": 0.01, "icl": 1.0, "afd": 1.0, "cosine": 1.0}


def given(mixture: DistillationLoss, width: int) -> tuple[Outputs, BatchTargets]:
    generator = torch.Generator().manual_seed(1)
    image, text, masked = (torch.randn(6, width, generator=generator) for _ in range(3))
    theirs = [torch.randn(6, 8, generator=generator) for _ in range(2)]
    with torch.no_grad():
        outputs = Outputs(
            image, text, *mixture.project(image, text), mixture.image_head(masked), None, torch.tensor(9.0)
        )
    return outputs, BatchTargets(theirs[0], theirs[1], 20.0)


@pytest.mark.parametrize("width", [8, 5])
def test_they_add_up_and_leave_no_trace(width: int) -> None:
    torch.manual_seed(0)
    mixture = DistillationLoss(WEIGHTS, width, 8)
    outputs, targets = given(mixture, width)
    shares = gradient_shares(mixture, outputs, targets)
    assert list(shares) == list(WEIGHTS) and sum(shares.values()) == pytest.approx(1)
    assert all(0 < share < 1 for share in shares.values())
    assert all(parameter.grad is None for parameter in mixture.parameters())
    assert not outputs.image.requires_grad
    with torch.no_grad():
        assert gradient_shares(mixture, outputs, targets) == shares


def test_they_are_the_norms_of_the_terms_gradients() -> None:
    torch.manual_seed(0)
    mixture = DistillationLoss({"task": 1.0, "mfd": 2.0}, 5, 8)
    outputs, targets = given(mixture, 5)
    image, text = outputs.image.clone().requires_grad_(), outputs.text.clone().requires_grad_()
    task = torch.cat(torch.autograd.grad(contrastive_loss(image, text, 9.0), (image, text))).norm()
    # The masked picture's embedding before the head: the head undone by least squares.
    head = mixture.image_head
    raw = (
        torch.linalg.lstsq(head.weight, (outputs.masked_image - head.bias).T)
        .solution.T.detach()
        .requires_grad_()
    )
    mfd = 2 * (
        feature_distillation(head(raw), targets.teacher_image)
        + feature_distillation(mixture.text_head(text), targets.teacher_text)
    )
    pull = torch.cat(torch.autograd.grad(mfd, (raw, text))).norm()
    shares = gradient_shares(mixture, outputs, targets)
    assert shares["task"] == pytest.approx(float(task / (task + pull)), rel=1e-4)


def test_nothing_pulls_where_student_and_teacher_are_one() -> None:
    mixture = DistillationLoss({"fd": 1.0}, 8, 8)
    same = F.normalize(torch.randn(4, 8), dim=1)
    outputs = Outputs(same, same, same, same, None, None, torch.tensor(9.0))
    assert gradient_shares(mixture, outputs, BatchTargets(same, same, 9.0))["fd"] == pytest.approx(
        0, abs=1e-6
    )
