import math

import pytest
import torch
from torch import Tensor

from workbench.objectives import (
    Mixture,
    contrastive_loss,
    cosine_distillation,
    feature_distillation,
    interactive_contrastive_loss,
    relational_distillation,
)

RELEASED = {"task": 1.0, "crd": 1.0, "fd": 4, "icl": 1.0}


def embeddings(*widths: int, batch: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, width, generator=generator, dtype=torch.float64) for width in widths]


def test_total_is_the_weighted_sum_of_every_term() -> None:
    mixture = Mixture({"task": 0.5, "crd": 2.0, "fd": 3.0, "icl": 0.7, "cosine": 1.3}, 4, 6).double()
    image, text, teacher_image, teacher_text = embeddings(4, 4, 6, 6)
    projected = mixture.project(image, text)
    total, terms = mixture(
        image, text, *projected, torch.tensor(9.0), teacher_image, teacher_text, torch.tensor(30.0)
    )
    expected = {
        "task": contrastive_loss(image, text, 9.0),
        "crd": relational_distillation(image, text, teacher_image, teacher_text, 9.0, 30.0),
        "fd": feature_distillation(projected[0], teacher_image)
        + feature_distillation(projected[1], teacher_text),
        "icl": interactive_contrastive_loss(*projected, teacher_image, teacher_text, 1 / 0.07),
        "cosine": cosine_distillation(projected[0], teacher_image)
        + cosine_distillation(projected[1], teacher_text),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-6, atol=0, msg=name)
    torch.testing.assert_close(total, sum(mixture.weights[name] * value for name, value in terms.items()))


def test_gradients_reach_everything_that_learns() -> None:
    mixture = Mixture(RELEASED, 4, 6).double()
    image, text, teacher_image, teacher_text = embeddings(4, 4, 6, 6)
    scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    learners = [image.requires_grad_(), text.requires_grad_(), scale, *mixture.parameters()]
    total, _ = mixture(image, text, *mixture.project(image, text), scale, teacher_image, teacher_text, 30.0)
    total.backward()
    assert {name for name, _ in mixture.named_parameters()} == {
        "image_head.weight", "image_head.bias", "text_head.weight", "text_head.bias", "interactive_log_scale",
    }  # fmt: skip
    assert all(float(each.grad.abs().max()) > 0 for each in learners)
    assert teacher_image.grad is None


def test_rows_add_up() -> None:
    mixture = Mixture({"task": 1.0, "crd": 1.0, "fd": 1.0, "icl": 1.0, "cosine": 1.0}, 4, 6).double()
    image, text, teacher_image, teacher_text = embeddings(4, 4, 6, 6)
    inputs = (image, text, *mixture.project(image, text), 9.0, teacher_image, teacher_text, 30.0)
    whole, terms = mixture(*inputs)
    first, first_terms = mixture(*inputs, rows=slice(0, 2))
    rest, rest_terms = mixture(*inputs, rows=slice(2, 6))
    torch.testing.assert_close(first + rest, whole)
    for name, value in terms.items():
        torch.testing.assert_close(first_terms[name] + rest_terms[name], value)


@pytest.mark.parametrize(
    "weights, teacher_dim, learned",
    [
        ({"task": 1.0}, None, set()),
        ({"task": 1.0, "crd": 1.0}, 6, set()),
        ({"fd": 1.0}, 4, set()),
        ({"fd": 0.0, "icl": 0.0, "task": 1.0}, 6, set()),
        ({"icl": 1.0}, 4, {"interactive_log_scale"}),
        ({"cosine": 1.0}, 6, {"image_head.weight", "image_head.bias", "text_head.weight", "text_head.bias"}),
    ],
)
def test_parameters_only_where_needed(weights: dict, teacher_dim: int | None, learned: set) -> None:
    mixture = Mixture(weights, 4, teacher_dim)
    assert {name for name, _ in mixture.named_parameters()} == learned
    image, text = torch.ones(2, 3, 4)
    if not any("head" in name for name in learned):
        assert mixture.project(image, text) == (image, text)


def test_weight_zero_is_not_computed() -> None:
    image, text = embeddings(4, 4)
    total, terms = Mixture({"task": 1.0, "fd": 0.0}, 4, None)(image, text, image, text, 10.0)
    assert terms.keys() == {"task"}
    torch.testing.assert_close(total, terms["task"])


def test_interactive_scale_stays_between_1_and_100() -> None:
    mixture = Mixture({"icl": 1.0}, 4, 4)
    assert mixture.interactive_scale.item() == pytest.approx(1 / 0.07)
    for stored, scale, kept in ((-3.0, 1.0, 0.0), (9.0, 100.0, math.log(100)), (2.0, math.exp(2), 2.0)):
        with torch.no_grad():
            mixture.interactive_log_scale.fill_(stored)
        assert mixture.interactive_scale.item() == pytest.approx(scale)
        mixture.clamp_scales_()
        assert mixture.interactive_log_scale.item() == pytest.approx(kept)
        mixture.interactive_scale.backward()
        assert float(mixture.interactive_log_scale.grad) != 0  # at its bounds it can still come back
        mixture.interactive_log_scale.grad = None
    without = Mixture({"task": 1.0}, 4, None)
    without.clamp_scales_()
    assert without.interactive_scale is None


def test_same_seed_same_heads() -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(Mixture(RELEASED, 4, 6).state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


@pytest.mark.parametrize(
    "weights, teacher_dim, message",
    [
        (
            {"task": 1.0, "kd": 2.0},
            6,
            r"objectives.kd = 2.0: no such objective. Choose from task, crd, fd, icl, cosine",
        ),
        ({"fd": -1.0}, 6, "objectives.fd = -1.0: .*0 or more"),
        ({"fd": math.nan}, 6, "objectives.fd = nan"),
        ({"crd": 1.0}, None, "objectives.crd = 1.0: learns from a teacher, and there is none"),
        ({"task": 0.0}, None, "every weight is 0"),
        ({}, None, "every weight is 0"),
    ],
)
def test_weights_that_cannot_be_used(weights: dict, teacher_dim: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixture(weights, 4, teacher_dim)


def test_missing_teacher_is_named() -> None:
    image, text = embeddings(4, 4)
    mixture = Mixture({"task": 1.0, "crd": 1.0}, 4, 4)
    with pytest.raises(ValueError, match="'crd' learns from a teacher, and teacher_scale is missing"):
        mixture(image, text, image, text, 10.0, image, text)
    with pytest.raises(ValueError, match="teacher_image, teacher_text, teacher_scale is missing"):
        mixture(image, text, image, text, 10.0)
