"""The grounded teacher: only regions are pooled, whatever the words are; padding changes nothing."""

import pytest
import torch
import torch.nn.functional as F

from workbench.models.cross_modal import CrossModalTeacher
from workbench.models.grounded import GroundedTeacher

DIM, HEADS = 32, 4
SIZES = [(6, 3), (1, 1), (4, 2), (2, 0)]  # words and regions of each pair


def pairs(fill: float = 0.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    token_mask = torch.tensor([[n < s for n in range(6)] for s, _ in SIZES])
    region_mask = torch.tensor([[n < r for n in range(3)] for _, r in SIZES])
    arrays = {
        "tokens": torch.randn(len(SIZES), 6, DIM, generator=generator),
        "regions": torch.randn(len(SIZES), 3, DIM, generator=generator),
        "region_boxes": torch.rand(len(SIZES), 3, 4, generator=generator).sort(-1).values,
    }
    for name, array in arrays.items():
        array[~(token_mask if name == "tokens" else region_mask)] = fill
    return {**arrays, "token_mask": token_mask, "region_mask": region_mask}


@pytest.fixture
def teacher() -> GroundedTeacher:
    """One that has learned something: every parameter away from where it begins."""
    torch.manual_seed(0)
    made = GroundedTeacher(DIM, HEADS)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return made.eval()


@pytest.mark.parametrize("fill", [1e4, float("nan")])
def test_padding_changes_nothing(teacher, fill) -> None:
    for name, ours, theirs in zip(
        teacher(**pairs())._fields, teacher(**pairs()), teacher(**pairs(fill)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, msg=name)


def test_a_pair_alone_is_the_pair_in_a_batch(teacher) -> None:
    given = pairs()
    for number, (words, regions) in enumerate(SIZES):
        alone = teacher(
            given["tokens"][number : number + 1, :words],
            given["token_mask"][number : number + 1, :words],
            given["regions"][number : number + 1, : max(1, regions)],
            given["region_mask"][number : number + 1, : max(1, regions)],
            region_boxes=given["region_boxes"][number : number + 1, : max(1, regions)],
        )
        together = teacher(**given)
        torch.testing.assert_close(alone.embedding[0], together.embedding[number])
        torch.testing.assert_close(alone.agreement[0], together.agreement[number])


def test_maps_are_shares(teacher) -> None:
    given, output = pairs(), teacher(**pairs())
    seen = given["token_mask"] & given["region_mask"].any(1, keepdim=True)
    torch.testing.assert_close(output.token_to_region.sum(-1)[:, 0][seen], torch.ones(int(seen.sum())))
    read = given["region_mask"]
    torch.testing.assert_close(output.region_to_token.sum(-1)[:, 0][read], torch.ones(int(read.sum())))
    torch.testing.assert_close(output.token_pooling.sum(1), torch.ones(len(SIZES)))
    torch.testing.assert_close(output.region_pooling.sum(1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    assert not output.embedding[3].any() and output.agreement[3] == 0  # no regions: nothing is known


def test_all_pairs_hold_the_single_ones(teacher) -> None:
    given, text = pairs(), torch.randn(len(SIZES), DIM, generator=torch.Generator().manual_seed(1))
    output = teacher(**given)
    single = F.cosine_similarity(output.embedding, text, dim=1) + output.agreement
    cosines, agreement = teacher.scores(**given, text=text)
    torch.testing.assert_close((cosines + agreement).diagonal(), single)


def test_no_word_leaks_into_the_embedding(teacher) -> None:
    """With one region there is nothing to choose: every caption pools the same, unlike in the published
    teacher."""
    given = pairs()
    given["region_mask"][:, 1:] = False
    same = {
        name: array[:1].expand_as(array) if name.startswith("region") else array
        for name, array in given.items()
    }
    embedding = teacher(**same).embedding
    torch.testing.assert_close(embedding, embedding[:1].expand_as(embedding))
    published = CrossModalTeacher(DIM, HEADS)(**same).embedding
    assert (published - published[:1]).abs().max() > 0.1


def test_exchanged_boxes_change_the_agreement_and_order_is_read(teacher) -> None:
    given = {name: array[2:3] for name, array in pairs().items()}
    before = teacher(**given)
    turned = given["region_boxes"][:, [1, 0, 2]]
    assert (teacher(**{**given, "region_boxes": turned}).agreement - before.agreement).abs() > 1e-4
    backwards = given["tokens"][:, [3, 2, 1, 0, 4, 5]]
    assert (teacher(**{**given, "tokens": backwards}).agreement - before.agreement).abs() > 1e-4


def test_what_does_not_fit_is_refused(teacher) -> None:
    with pytest.raises(ValueError, match="width of 30"):
        GroundedTeacher(30, 4)
    given = pairs()
    with pytest.raises(ValueError, match="region_boxes"):
        teacher(**{**given, "region_boxes": None})
    with pytest.raises(ValueError, match="no region weights"):
        teacher(**given, region_weights=torch.ones(len(SIZES), 3))
