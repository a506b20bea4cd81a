"""Several teachers of one student: values, gradients, heads and sides against single teachers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.objectives import DistillationLoss
from workbench.objectives.combined import OBJECTIVES
from workbench.objectives.ensemble import Member

STUDENT, BATCH = 6, 5
MEMBERS = (Member(6, weight=3.0), Member(6), Member(4, weight=2.0))
SCALES = (20.0, 50.0, 80.0)
OF_EACH = [name for name, entry in OBJECTIVES.items() if entry.of_each_teacher]


def embeddings(*widths: int) -> list[Tensor]:
    return [torch.randn(BATCH, width, dtype=torch.float64) for width in widths]


def of_several(loss: DistillationLoss, student: list[Tensor], theirs: list[list[Tensor]], **more: Any) -> Any:
    """`theirs`: a list of image and text embeddings, None for a side that a teacher lacks, by teacher."""
    image, text = student
    sides = [torch.cat([one[side] for one in theirs if one[side] is not None], dim=1) for side in (0, 1)]
    masked = loss.image_head(image.flip(0))
    scales = SCALES[: len(theirs)]
    return loss(
        image, text, *loss.project(image, text), torch.tensor(30.0), *sides,
        scales if len(scales) > 1 else scales[0], masked_image=masked, **more,
    )  # fmt: skip


@pytest.mark.parametrize("name", OF_EACH)
@pytest.mark.parametrize("chunk", [None, 2])
def test_a_value_is_the_weighted_mean_of_single_teachers(name: str, chunk: int | None) -> None:
    torch.manual_seed(0)
    student = [side.requires_grad_() for side in embeddings(STUDENT, STUDENT)]
    theirs = [embeddings(member.width, member.width) for member in MEMBERS]
    loss = DistillationLoss({"task": 1.0, name: 2.0}, STUDENT, MEMBERS, chunk=chunk).double()
    total, values = of_several(loss, student, theirs)
    singles = []
    for number, member in enumerate(MEMBERS):
        single = DistillationLoss({name: 2.0}, STUDENT, member.width).double()
        for side in ("image_head", "text_head"):
            if isinstance(head := getattr(loss, side), nn.ModuleList):
                setattr(single, side, head[number])
        for part, module in loss.own_parts[number].items():
            setattr(single, part, module)
        image, text = student
        given = theirs[number][0], theirs[number][1], SCALES[number]
        singles.append(
            single(
                *(image, text, *single.project(image, text), torch.tensor(30.0), *given),
                masked_image=single.image_head(image.flip(0)),
            )[1][name]
        )
    expected = (3 * singles[0] + singles[1] + 2 * singles[2]) / 6
    torch.testing.assert_close(values[name], expected)
    torch.testing.assert_close(total, values["task"] + 2 * expected)
    gradients = torch.autograd.grad(values[name], student, allow_unused=True)
    for got, wanted in zip(gradients, torch.autograd.grad(expected, student, allow_unused=True), strict=True):
        torch.testing.assert_close(got, wanted)


def test_crd_pulls_towards_the_mean_of_the_teachers_probabilities() -> None:
    """As MobileCLIP's loss does, which averages the softmax of all teachers."""
    torch.manual_seed(1)
    image, text = student = [side.requires_grad_() for side in embeddings(STUDENT, STUDENT)]
    theirs = [embeddings(4, 4), embeddings(8, 8)]
    _, values = of_several(DistillationLoss({"crd": 1.0}, STUDENT, [Member(4), Member(8)]), student, theirs)
    logits = 30 * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
    cosines = [F.normalize(one, dim=1) @ F.normalize(two, dim=1).T for one, two in theirs]
    mean = [
        ((SCALES[0] * first).softmax(1) + (SCALES[1] * second).softmax(1)) / 2
        for first, second in (cosines, [cosine.T for cosine in cosines])
    ]
    entropy = [
        -(p * side.log_softmax(1)).sum(1).mean() for p, side in zip(mean, (logits, logits.T), strict=True)
    ]
    expected = torch.autograd.grad(sum(entropy) / 2, student)
    for got, wanted in zip(torch.autograd.grad(values["crd"], student), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_only_the_first_teacher_may_share_the_students_space() -> None:
    loss = DistillationLoss({"fd": 1.0}, STUDENT, MEMBERS)
    assert [type(head) for head in loss.image_head] == [nn.Identity, nn.Linear, nn.Linear]
    assert [head.out_features for head in loss.text_head[1:]] == [6, 4]
    assert not list(DistillationLoss({"crd": 1.0}, STUDENT, MEMBERS).parameters())


def test_teachers_of_one_side_each_teach_theirs() -> None:
    torch.manual_seed(2)
    members = [Member(4, ("image",)), Member(3, ("text",)), Member(2)]
    loss = DistillationLoss({"fd": 1.0}, STUDENT, members).double()
    student, both = embeddings(STUDENT, STUDENT), embeddings(4, 3, 2, 2)
    theirs = [[both[0], None], [None, both[1]], [both[2], both[3]]]
    _, values = of_several(loss, student, theirs)
    distances = [
        (F.normalize(head(ours), dim=1) - F.normalize(target, dim=1)).square().sum(1).mean()
        for ours, head, target in (
            (student[0], loss.image_head[0], both[0]),
            (student[1], loss.text_head[0], both[1]),
            (student[0], loss.image_head[1], both[2]),
            (student[1], loss.text_head[1], both[3]),
        )
    ]
    torch.testing.assert_close(values["fd"], sum(distances) / 3)
    assert loss.compared("image") == [slice(0, 4), slice(4, 6)]
    with pytest.raises(ValueError, match="'crd' requires teacher_text"):
        of_several(DistillationLoss({"crd": 1.0}, STUDENT, members), student, theirs)


def test_one_teacher_in_a_list_is_one_teacher() -> None:
    weights = dict.fromkeys(OF_EACH, 1.0)
    torch.manual_seed(3)
    alone = DistillationLoss(weights, STUDENT, 4)
    torch.manual_seed(3)
    listed = DistillationLoss(weights, STUDENT, [Member(4, weight=5.0)])
    assert alone.state_dict().keys() == listed.state_dict().keys()
    assert all(torch.equal(value, listed.state_dict()[key]) for key, value in alone.state_dict().items())
