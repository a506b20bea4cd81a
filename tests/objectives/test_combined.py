import math

import pytest
import torch
from torch import Tensor

from workbench.objectives import (
    DistillationLoss,
    concept_loss,
    contrastive_loss,
    cosine_distillation,
    embedding_regression,
    feature_distillation,
    fused_contrastive_loss,
    gradient_distillation,
    image_relations,
    interactive_contrastive_loss,
    relational_distillation,
)

RELEASED = {"task": 1.0, "crd": 1.0, "fd": 4, "icl": 1.0}


def embeddings(*widths: int, batch: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, width, generator=generator, dtype=torch.float64) for width in widths]


WEIGHTS = {"task": 0.5, "crd": 2.0, "fd": 3.0, "mfd": 1.1, "gd": 0.2, "icl": 0.7, "afd": 0.9, "cosine": 1.3,
           "embedding": 0.8, "concepts": 0.6, "cross_modal": 0.4, "preservation": 0.3,
           "image_relations": 0.6}  # fmt: skip


def everything() -> tuple[DistillationLoss, tuple, dict]:
    """A mixture of all terms, and what to call it with."""
    torch.manual_seed(0)
    mixture = DistillationLoss(WEIGHTS, 4, 6, target_dim=3, concepts=5).double()
    image, text, masked, teacher_image, teacher_text, target, labels, pair = embeddings(
        4, 4, 4, 6, 6, 3, 5, 6
    )
    inputs = (image, text, *mixture.project(image, text), 9.0, teacher_image, teacher_text, 30.0)
    others = {
        "masked_image": mixture.image_head(masked),
        "text_target": target,
        "soft_labels": labels.softmax(1),
        "cross_modal_target": pair,
    }
    return mixture, inputs, others


def test_total_is_the_weighted_sum_of_every_term() -> None:
    mixture, inputs, others = everything()
    total, terms = mixture(*inputs, **others)
    image, text, *projected = inputs[:4]
    teacher = inputs[5:7]
    expected = {
        "task": contrastive_loss(image, text, 9.0),
        "crd": relational_distillation(image, text, *teacher, 9.0, 30.0),
        "fd": feature_distillation(projected[0], teacher[0]) + feature_distillation(projected[1], teacher[1]),
        "mfd": feature_distillation(others["masked_image"], teacher[0])
        + feature_distillation(projected[1], teacher[1]),
        "gd": gradient_distillation(*projected, *teacher, 9.0, 30.0),
        "icl": interactive_contrastive_loss(*projected, *teacher, 1 / 0.07),
        "afd": fused_contrastive_loss(image, text, *teacher, mixture.fuse_image, mixture.fuse_text, 1 / 0.07),
        "cosine": cosine_distillation(projected[0], teacher[0])
        + cosine_distillation(projected[1], teacher[1]),
        "embedding": embedding_regression(text, others["text_target"], mixture.embedding_head),
        "concepts": concept_loss(image, text, others["soft_labels"], mixture.concept_classifier),
        "cross_modal": cosine_distillation(projected[0], others["cross_modal_target"]),
        "preservation": cosine_distillation(projected[0], teacher[0]),
        "image_relations": image_relations(image, teacher[0], 30.0),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-6, atol=0, msg=name)
    torch.testing.assert_close(total, sum(mixture.weights[name] * value for name, value in terms.items()))


def test_a_chunked_mixture_is_the_same() -> None:
    mixture, inputs, others = everything()
    for rows in (None, slice(1, 4)):
        expected, _ = mixture(*inputs, **others, rows=rows)
        mixture.chunk = 2
        torch.testing.assert_close(mixture(*inputs, **others, rows=rows)[0], expected)
        mixture.chunk = None


def test_gradients_reach_everything_that_learns() -> None:
    mixture = DistillationLoss(RELEASED, 4, 6).double()
    image, text, teacher_image, teacher_text = embeddings(4, 4, 6, 6)
    scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
    learners = [image.requires_grad_(), text.requires_grad_(), scale, *mixture.parameters()]
    total, _ = mixture(image, text, *mixture.project(image, text), scale, teacher_image, teacher_text, 30.0)
    total.backward()
    assert {name for name, _ in mixture.named_parameters()} == {
        "image_head.weight", "image_head.bias", "text_head.weight", "text_head.bias", "interactive_scale.log",
    }  # fmt: skip
    assert all(float(entry.grad.abs().max()) > 0 for entry in learners)
    assert teacher_image.grad is None


@pytest.mark.parametrize("name", ["fd", "mfd", "cosine"])
def test_a_picture_without_a_caption_has_no_text_term(name: str) -> None:
    """Whatever stands where its caption would be, NaN of no meaning included."""
    mixture = DistillationLoss({name: 1.0}, 6, 6).double()
    image, text, teacher_image, teacher_text, masked = embeddings(6, 6, 6, 6, 6)
    captioned = torch.tensor([1, 0, 1, 1, 0, 0], dtype=torch.float64)
    seen = masked if name == "mfd" else image
    distance = cosine_distillation if name == "cosine" else feature_distillation
    kept = captioned.bool()
    expected = distance(seen, teacher_image) + distance(text[kept], teacher_text[kept]) * kept.sum() / 6
    teacher_text[~kept] = 0
    others = {"masked_image": masked, "captioned": captioned}
    sides = image, text, image, text, 9.0, teacher_image, teacher_text, 30.0
    torch.testing.assert_close(mixture(*sides, **others)[0], expected)
    parts = [mixture(*sides, **others, rows=rows)[0] for rows in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(sum(parts), expected)
    none = mixture(*sides, masked_image=masked, captioned=torch.zeros_like(captioned))[0]
    torch.testing.assert_close(none, distance(seen, teacher_image))


def test_rows_add_up() -> None:
    mixture, inputs, others = everything()
    whole, terms = mixture(*inputs, **others)
    first, first_terms = mixture(*inputs, **others, rows=slice(0, 2))
    rest, rest_terms = mixture(*inputs, **others, rows=slice(2, 6))
    torch.testing.assert_close(first + rest, whole)
    for name, value in terms.items():
        torch.testing.assert_close(first_terms[name] + rest_terms[name], value)


def test_gradients_reach_the_towers_they_should() -> None:
    """Knowledge-CLIP: the regression teaches the text tower and its head, the concepts both towers."""
    image, text, target, labels = embeddings(4, 4, 3, 5)
    for name, reached in (("embedding", (False, True)), ("concepts", (True, True))):
        torch.manual_seed(0)
        mixture = DistillationLoss({name: 1.0}, 4, None, target_dim=3, concepts=5).double()
        towers = image.clone().requires_grad_(), text.clone().requires_grad_()
        scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)
        total, _ = mixture(*towers, *towers, scale, text_target=target, soft_labels=labels.softmax(1))
        total.backward()
        assert tuple(entry.grad is not None and bool(entry.grad.any()) for entry in towers) == reached
        assert scale.grad is None
        parameters = dict(mixture.named_parameters())
        assert parameters and all(entry.grad.any() for entry in parameters.values())


@pytest.mark.parametrize(
    "weights, teacher_dim, learned",
    [
        ({"task": 1.0}, None, set()),
        ({"task": 1.0, "crd": 1.0}, 6, set()),
        ({"fd": 1.0}, 4, set()),
        ({"fd": 0.0, "icl": 0.0, "task": 1.0}, 6, set()),
        ({"icl": 1.0}, 4, {"interactive_scale.log"}),
        ({"cosine": 1.0}, 6, {"image_head.weight", "image_head.bias", "text_head.weight", "text_head.bias"}),
        ({"preservation": 1.0}, 6, {"image_head.weight", "image_head.bias"}),
    ],
)
def test_parameters_only_where_needed(weights: dict, teacher_dim: int | None, learned: set) -> None:
    mixture = DistillationLoss(weights, 4, teacher_dim)
    assert {name for name, _ in mixture.named_parameters()} == learned
    image, text = torch.ones(2, 3, 4)
    if not any("head" in name for name in learned):
        assert mixture.project(image, text) == (image, text)


def test_weight_zero_is_not_computed() -> None:
    image, text = embeddings(4, 4)
    total, terms = DistillationLoss({"task": 1.0, "fd": 0.0}, 4, None)(image, text, image, text, 10.0)
    assert terms.keys() == {"task"}
    torch.testing.assert_close(total, terms["task"])


def test_learned_scales_stay_between_1_and_100() -> None:
    mixture = DistillationLoss({"icl": 1.0, "afd": 1.0, "concepts": 1.0}, 4, 4, concepts=3)
    for scale in (mixture.interactive_scale, mixture.fused_scale, mixture.concept_classifier.scale):
        assert scale().item() == pytest.approx(1 / 0.07)
        for stored, value, kept in ((-3.0, 1.0, 0.0), (9.0, 100.0, math.log(100)), (2.0, math.exp(2), 2.0)):
            with torch.no_grad():
                scale.log.fill_(stored)
            assert scale().item() == pytest.approx(value)
            mixture.clamp_scales_()
            assert scale.log.item() == pytest.approx(kept)
            scale().backward()
            assert float(scale.log.grad) != 0  # at its bounds it can still come back
            scale.log.grad = None
    DistillationLoss({"task": 1.0}, 4, None).clamp_scales_()


def test_same_seed_same_heads() -> None:
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(DistillationLoss(RELEASED, 4, 6).state_dict())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])


@pytest.mark.parametrize(
    "weights, teacher_dim, message",
    [
        (
            {"task": 1.0, "kd": 2.0},
            6,
            r"objectives.kd = 2.0: no such objective. Choose from task, crd, fd, mfd, gd, icl, afd, cosine,",
        ),
        ({"fd": -1.0}, 6, "objectives.fd = -1.0: .*0 or more"),
        ({"fd": math.nan}, 6, "objectives.fd = nan"),
        ({"crd": 1.0}, None, "objectives.crd = 1.0: learns from a teacher, and there is none"),
        ({"embedding": 1.0}, 6, "objectives.embedding = 1.0: learns from a text teacher, and there is none"),
        ({"concepts": 1.0}, 6, "learns from a text teacher's concepts, and there is none"),
        ({"task": 0.0}, None, "every weight is 0"),
        ({}, None, "every weight is 0"),
    ],
)
def test_weights_that_cannot_be_used(weights: dict, teacher_dim: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillationLoss(weights, 4, teacher_dim)


def test_missing_teacher_is_named() -> None:
    image, text = embeddings(4, 4)
    mixture = DistillationLoss({"task": 1.0, "crd": 1.0}, 4, 4)
    with pytest.raises(ValueError, match="'crd' requires teacher_scale"):
        mixture(image, text, image, text, 10.0, image, text)
    with pytest.raises(ValueError, match="requires teacher_image, teacher_text, teacher_scale"):
        mixture(image, text, image, text, 10.0)
