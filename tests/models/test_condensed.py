"""The condensed teacher against a slow version, one picture without padding at a time."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.models import CondensedTeacher

DIM, HEADS, QUERIES, WORDS = 32, 4, 3, 2
REGIONS = [3, 1, 6]


def made(seed: int = 0) -> CondensedTeacher:
    torch.manual_seed(seed)
    teacher = CondensedTeacher(DIM, HEADS, QUERIES).eval()
    torch.nn.init.normal_(teacher.attention.out_proj.weight, std=0.2)
    torch.nn.init.normal_(teacher.attention.in_proj_bias, std=0.2)
    return teacher


def pictures(fill: float = 0.0) -> dict[str, Tensor]:
    regions = torch.randn(len(REGIONS), max(REGIONS), DIM, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(max(REGIONS)) < torch.tensor(REGIONS)[:, None]
    regions[~mask] = fill
    words = torch.zeros(len(REGIONS), WORDS, DIM), torch.ones(len(REGIONS), WORDS, dtype=torch.bool)
    return {"tokens": words[0], "token_mask": words[1], "regions": regions, "region_mask": mask}


def slow(teacher: CondensedTeacher, regions: Tensor) -> tuple[Tensor, Tensor]:
    unit = regions / regions.norm(dim=-1, keepdim=True)
    rows = teacher.region_norm(unit * DIM**0.5)
    change, maps = teacher.attention(teacher.queries, rows, rows, average_attn_weights=False)
    condensed = []
    for query in range(QUERIES):
        weights = maps[:, query].mean(0)
        vector = sum(w * row for w, row in zip(weights, unit, strict=True)) + change[query] / DIM**0.5
        condensed.append(vector / vector.norm())
    return torch.stack(condensed).mean(0), maps.mean((0, 1))


@pytest.mark.parametrize("fill", [0.0, math.nan])
def test_equals_the_slow_version(fill: float) -> None:
    teacher, read = made(), pictures(fill)
    output = teacher(**read)
    for row, count in enumerate(REGIONS):
        embedding, weights = slow(teacher, read["regions"][row, :count])
        torch.testing.assert_close(output.embedding[row], embedding)
        torch.testing.assert_close(output.region_pooling[row, :count], weights)
        assert not output.region_pooling[row, count:].any()
    assert not output.token_to_region.any() and not output.region_to_token.any()


def test_starts_within_the_regions_of_the_teacher() -> None:
    read = pictures()
    output = CondensedTeacher(DIM, HEADS, QUERIES)(**read)
    unit = F.normalize(read["regions"], dim=-1)
    pooled = F.normalize((output.region_pooling.unsqueeze(1) @ unit).squeeze(1), dim=-1)
    assert (F.cosine_similarity(output.embedding, pooled) > 0.99).all()


def test_words_change_nothing_and_a_picture_without_regions_is_zero() -> None:
    teacher, read = made(), pictures()
    other = teacher(**{**read, "tokens": torch.randn_like(read["tokens"])})
    torch.testing.assert_close(other.embedding, teacher(**read).embedding, rtol=0, atol=0)
    read["region_mask"][1] = False
    output = teacher(**read)
    assert not output.embedding[1].any() and output.embedding[[0, 2]].any(1).all()


def test_has_the_documented_number_of_parameters_and_gradients_everywhere() -> None:
    assert sum(p.numel() for p in CondensedTeacher(512, 8, 4).parameters()) == 1_053_696
    teacher = made()
    (teacher(**pictures()).embedding * torch.randn(len(REGIONS), DIM)).sum().backward()
    assert all(p.grad is not None for p in teacher.parameters())


def test_refuses_what_it_cannot_be() -> None:
    with pytest.raises(ValueError, match="32 cannot be shared by 5 heads"):
        CondensedTeacher(32, 5)
    with pytest.raises(ValueError, match="0 queries"):
        CondensedTeacher(32, 4, 0)
    read = pictures()
    with pytest.raises(ValueError, match="takes no region weights"):
        made()(**read, region_weights=torch.ones(read["region_mask"].shape))
