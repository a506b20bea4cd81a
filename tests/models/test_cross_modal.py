"""The cross-modal teacher against a slow version, one unpadded pair at a time, through torch's own
attention."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.models.cross_modal import CrossModalTeacher, region_weights
from workbench.models.spherical_clusters import spherical_clusters

DIM, HEADS = 32, 4
SIZES = [(5, 3), (1, 1), (4, 2), (2, 6)]  # tokens and regions of each pair


def pairs(fill: float = 0.0, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    words, pictures = max(s for s, _ in SIZES), max(r for _, r in SIZES)
    token_mask = torch.tensor([[n < s for n in range(words)] for s, _ in SIZES])
    region_mask = torch.tensor([[n < r for n in range(pictures)] for _, r in SIZES])
    arrays = {
        "tokens": torch.randn(len(SIZES), words, DIM, generator=generator),
        "regions": torch.randn(len(SIZES), pictures, DIM, generator=generator),
        "region_weights": torch.rand(len(SIZES), pictures, generator=generator),
        "region_boxes": torch.rand(len(SIZES), pictures, 4, generator=generator).sort(-1).values,
    }
    for name, array in arrays.items():
        array[~(token_mask if name == "tokens" else region_mask)] = fill
    return {**arrays, "token_mask": token_mask, "region_mask": region_mask}


def one_pair(given: dict[str, Tensor], number: int) -> tuple[Tensor, Tensor, Tensor]:
    words, pictures = SIZES[number]
    return (
        given["tokens"][number, :words],
        given["regions"][number, :pictures],
        given["region_weights"][number, :pictures],
    )


def slow_pool(rows: Tensor, logs: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    mean = rows.mean(0)
    cosines = torch.stack([F.cosine_similarity(row, mean, dim=0) for row in rows])
    weights = (cosines / temperature + logs).softmax(0)
    return sum(w * row for w, row in zip(weights, rows, strict=True)), weights


def slow(teacher: CrossModalTeacher, tokens: Tensor, regions: Tensor, weights: Tensor) -> list[Tensor]:
    """Embedding, both maps and both poolings of a pair without padding."""
    logs = (weights + 1e-6).log()
    mask = logs.expand(len(tokens), -1)
    seen, to_regions = teacher.token_attention(
        tokens, regions, regions, attn_mask=mask, average_attn_weights=False
    )
    read, to_tokens = teacher.region_attention(regions, tokens, tokens, average_attn_weights=False)
    words, token_pooling = slow_pool(
        teacher.token_norm(tokens + seen), torch.zeros(len(tokens)), teacher.pooling_temperature
    )
    picture, region_pooling = slow_pool(
        teacher.region_norm(regions + read), logs, teacher.pooling_temperature
    )
    embedding = picture if teacher.target == "image" else 0.5 * words + 0.5 * picture
    return [embedding, to_regions, to_tokens, token_pooling, region_pooling]


@pytest.mark.parametrize("target", ["mix", "image"])
@pytest.mark.parametrize("fill", [0.0, 1e4, float("nan")])
def test_equals_the_slow_version_whatever_the_padding_holds(target: str, fill: float) -> None:
    torch.manual_seed(0)
    teacher = CrossModalTeacher(DIM, HEADS, 0.7, target=target)
    given = pairs(fill)
    result = teacher(**given)
    for number, (words, pictures) in enumerate(SIZES):
        expected = slow(teacher, *one_pair(given, number))
        valid = [
            result.embedding[number],
            result.token_to_region[number, :, :words, :pictures],
            result.region_to_token[number, :, :pictures, :words],
            result.token_pooling[number, :words],
            result.region_pooling[number, :pictures],
        ]
        for ours, theirs in zip(valid, expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)
        assert not result.token_to_region[number, :, :, pictures:].any()
        assert not result.region_to_token[number, :, :, words:].any()
        assert not result.token_pooling[number, words:].any()
        assert not result.region_pooling[number, pictures:].any()


@pytest.mark.parametrize(
    ("clusters", "rotary", "interaction"),
    list(itertools.product([1, 3], [False, True], ["attention", "mean", "none"])),
)
def test_padding_and_neighbours_change_nothing(clusters: int, rotary: bool, interaction: str) -> None:
    torch.manual_seed(1)
    teacher = CrossModalTeacher(DIM, HEADS, clusters=clusters, rotary=rotary, interaction=interaction)
    given = pairs(float("nan"))
    together = teacher(**given)
    together.embedding.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in teacher.parameters() if p.grad is not None)
    for number, (words, pictures) in enumerate(SIZES):
        sizes = {"tokens": words, "token_mask": words}
        alone = teacher(
            **{name: array[number : number + 1, : sizes.get(name, pictures)] for name, array in given.items()}
        )
        torch.testing.assert_close(together.embedding[number], alone.embedding[0], atol=2e-6, rtol=1e-5)
        torch.testing.assert_close(
            together.token_to_region[number, :, :words, :pictures], alone.token_to_region[0]
        )


def test_rows_of_attention_sum_to_one_over_valid_keys() -> None:
    result = CrossModalTeacher(DIM, HEADS)(**pairs())
    torch.testing.assert_close(
        result.token_to_region.sum(-1), torch.ones_like(result.token_to_region[..., 0])
    )
    torch.testing.assert_close(
        result.region_to_token.sum(-1), torch.ones_like(result.region_to_token[..., 0])
    )
    torch.testing.assert_close(result.token_pooling.sum(-1), torch.ones(len(SIZES)))
    torch.testing.assert_close(result.region_pooling.sum(-1), torch.ones(len(SIZES)))


@pytest.mark.parametrize("weight", [0.0, 0.2, 5.0])
@pytest.mark.parametrize("clusters", [1, 3])
def test_equal_weights_change_nothing_and_others_do(weight: float, clusters: int) -> None:
    teacher, given = CrossModalTeacher(DIM, HEADS, clusters=clusters), pairs()
    without = teacher(**{**given, "region_weights": None})
    equal = teacher(**{**given, "region_weights": torch.full_like(given["region_weights"], weight)})
    for ours, theirs in zip(equal, without, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)
    assert not torch.allclose(teacher(**given).embedding, without.embedding, atol=1e-3)


def test_a_side_without_entries_is_left_out() -> None:
    given = pairs()
    given["region_mask"][0], given["token_mask"][1] = False, False
    teacher = CrossModalTeacher(DIM, HEADS)
    result = teacher(**given)
    assert all(torch.isfinite(part).all() for part in result)
    words, _ = slow_pool(teacher.token_norm(given["tokens"][0, :5]), torch.zeros(5), 2.0)
    torch.testing.assert_close(result.embedding[0], words, atol=2e-6, rtol=1e-5)
    assert not result.token_to_region[0].any() and not result.region_pooling[0].any()
    picture, _ = slow_pool(
        teacher.region_norm(given["regions"][1, :1]), torch.zeros(1), 2.0
    )  # one region has all the weight
    torch.testing.assert_close(result.embedding[1], picture, atol=2e-6, rtol=1e-5)


def test_size_and_ablations() -> None:
    count = {
        name: sum(p.numel() for p in CrossModalTeacher(512, interaction=name).parameters())
        for name in ("attention", "mean", "none")
    }
    assert count == {"attention": 2_103_296, "mean": 2048, "none": 2048}
    assert sum(p.numel() for p in CrossModalTeacher(768).parameters()) == 4_727_808
    given = pairs()
    teacher = CrossModalTeacher(DIM, HEADS, interaction="mean")
    tokens, regions, weights = one_pair(given, 0)
    shares = (weights + 1e-6) / (weights + 1e-6).sum()
    words, _ = slow_pool(teacher.token_norm(tokens + shares @ regions), torch.zeros(5), 2.0)
    picture, _ = slow_pool(teacher.region_norm(regions + tokens.mean(0)), (weights + 1e-6).log(), 2.0)
    result = teacher(**given)
    torch.testing.assert_close(result.embedding[0], 0.5 * (words + picture), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(result.token_to_region[0, 0, 0, :3], shares)
    apart = CrossModalTeacher(DIM, HEADS, interaction="none")(**given)
    assert not apart.token_to_region.any() and not apart.region_to_token.any()


def test_rotary_attention_sees_where_things_are() -> None:
    teacher, given = CrossModalTeacher(DIM, HEADS, rotary=True), pairs()
    result = teacher(**given)
    moved = teacher(**{**given, "region_boxes": given["region_boxes"] * 0.5})
    assert not torch.allclose(result.token_to_region, moved.token_to_region, atol=1e-4)
    origin = {**given, "region_boxes": torch.zeros_like(given["region_boxes"])}
    one_word = {**origin, "tokens": given["tokens"][:, :1], "token_mask": given["token_mask"][:, :1]}
    teacher.rotary = False
    plain = teacher(**one_word)
    teacher.rotary = True  # at place 0 nothing turns
    torch.testing.assert_close(teacher(**one_word).embedding, plain.embedding)
    with pytest.raises(ValueError, match="region_boxes"):
        teacher(**{**given, "region_boxes": None})


@pytest.mark.parametrize(
    "bad",
    [
        {"dim": 30, "heads": 4},
        {"dim": 24, "heads": 4, "rotary": True},
        {"dim": 32, "target": "text"},
        {"dim": 32, "interaction": "sum"},
        {"dim": 32, "clusters": 0},
        {"dim": 32, "pooling_temperature": 0.0},
    ],
)
def test_settings_that_cannot_work_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"\d|target|interaction"):
        CrossModalTeacher(**bad)


def test_region_weights_are_their_formula() -> None:
    given = pairs(float("nan"))
    confidences, areas = torch.rand(2, len(SIZES), 6)
    weights = region_weights(
        confidences, areas, given["regions"], given["region_mask"], given["tokens"], given["token_mask"]
    )
    for number, (_, pictures) in enumerate(SIZES):
        tokens, regions, _ = one_pair(given, number)
        raw = [
            confidences[number, r]
            * areas[number, r]
            * max(0.0, max(float(F.cosine_similarity(regions[r], token, dim=0)) for token in tokens))
            for r in range(pictures)
        ]
        expected = torch.stack(raw) / sum(raw) if sum(raw) else torch.full((pictures,), 1 / pictures)
        torch.testing.assert_close(weights[number, :pictures], expected)
        assert not weights[number, pictures:].any()
    opposite = region_weights(
        confidences[:1, :2],
        areas[:1, :2],
        torch.ones(1, 2, DIM),
        torch.ones(1, 2, dtype=torch.bool),
        -torch.ones(1, 1, DIM),
        torch.ones(1, 1, dtype=torch.bool),
    )
    assert opposite.tolist() == [[0.5, 0.5]]


def test_clusters_part_what_is_apart_and_need_no_chance() -> None:
    corners = torch.eye(3)[[0, 1, 2, 0, 1, 2, 0]] + 0.05 * torch.randn(7, 3)
    mask = torch.tensor([[True] * 7, [True, True] + [False] * 5])
    rows = torch.stack([corners, corners])
    rows[1, 2:] = float("nan")
    result = spherical_clusters(rows, mask, 3)
    groups = {frozenset(members.nonzero().flatten().tolist()) for members in result[0]}
    assert groups == {frozenset({0, 3, 6}), frozenset({1, 4}), frozenset({2, 5})}
    assert result.any(2).sum(1).tolist() == [3, 2] and not result[1, :, 2:].any()
    assert torch.equal(result, spherical_clusters(rows, mask, 3))
    alike = spherical_clusters(torch.ones(1, 4, 3), torch.ones(1, 4, dtype=torch.bool), 3)
    assert alike.any(2).sum() == 1 and alike.sum() == 4
