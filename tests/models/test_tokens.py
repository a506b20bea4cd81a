"""Words and patches: what pools to the model's own embeddings, whatever the tower."""

import pyarrow as pa
import pytest
import torch

from workbench.data.pairs import Pairs
from workbench.models import tokens
from workbench.models.loading import load_dual_encoder
from workbench.models.tokens import caption_tokens, cut_captions, patch_tokens, word_mask, words

CAPTIONS = ["a red apple left of a dog", "two!", ""]


@pytest.fixture(scope="module", params=["demo_teacher", "vit_tiny_16", "swin_tiny", "tests/tiny_vit.json"])
def model(request: pytest.FixtureRequest):
    torch.manual_seed(0)
    return load_dual_encoder(request.param).eval()


def test_words_are_neither_start_nor_end_nor_padding(model) -> None:
    ids = model.tokenize(CAPTIONS)
    assert word_mask(model, ids).sum(1).tolist() == [7, 2, 0]
    assert words(model, CAPTIONS[0]) == ["a", "red", "apple", "left", "of", "a", "dog"]
    assert words(model, "!!") in (["!", "!"], ["!!"]) and len(words(model, "")) == 1


@pytest.mark.parametrize("room", [0, 1])
def test_captions_that_are_cut_are_counted(model, room: int) -> None:
    """A caption is cut where one token more of context gives it one token more."""
    context = model.tokenizer.context_length
    fits = " ".join(["dog"] * (context - 2))
    captions = [["dog", fits], [f"{fits} dog", f"{fits} and a red apple"], ["ü" * 300]][: 2 + room]
    table = pa.table({"id": [str(n) for n in range(len(captions))], "captions": captions})
    result = cut_captions(model, Pairs(table, lambda _: None, name="long", split="train"))
    every = [caption for of_one in captions for caption in of_one]
    longer = model.tokenizer(every, context_length=4 * context)
    empty = model.tokenizer([""], context_length=4 * context)
    wanted = [
        caption
        for caption, ids in zip(every, longer, strict=True)
        if (ids[context:] != empty[0, context:]).any()
    ]
    assert result.examples == wanted[:3] and {f"{fits} dog"} <= set(wanted) and fits not in wanted
    assert (result.cut, result.captions, result.context) == (len(wanted), len(every), context)
    assert f"{len(wanted)} of {len(every)} captions at {context} tokens, such as 'dog dog" in str(result)


def test_short_captions_need_no_tokenizer(model) -> None:
    table = pa.table({"id": ["a"], "captions": pa.array([["dog"]], pa.list_(pa.large_string()))})
    result = cut_captions(model, Pairs(table, lambda _: None, name="short", split="train"))
    assert (result.cut, result.captions, result.examples) == (0, 1, [])


def test_of_very_many_long_captions_some_are_counted(model, monkeypatch) -> None:
    monkeypatch.setattr(tokens, "MOST_COUNTED", 10)
    captions = [[" ".join(["dog"] * (4 + 200 * (n % 2)))] for n in range(60)]
    table = pa.table({"id": [str(n) for n in range(60)], "captions": captions})
    result = cut_captions(model, Pairs(table, lambda _: None, name="long", split="train"))
    assert result.cut == 30 and result.about and str(result).startswith("about 30 of 60")


def test_a_caption_without_words_has_its_embedding_for_a_token(model) -> None:
    result = caption_tokens(model, model.tokenize(CAPTIONS))
    assert result.mask.sum(1).tolist() == [7, 2, 1]
    torch.testing.assert_close(result.tokens[2][result.mask[2]][0], result.pooled[2])
    torch.testing.assert_close(result.pooled, model.encode_text(model.tokenize(CAPTIONS)))


def test_the_token_that_a_tower_pools_is_its_embedding() -> None:
    torch.manual_seed(0)
    model = load_dual_encoder("vit_tiny_16").eval()
    ids = model.tokenize(CAPTIONS[:1])
    everything = torch.ones_like(ids, dtype=torch.bool)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.models.tokens.word_mask", lambda *_: everything)
        result = caption_tokens(model, ids)
    end = int(ids[0].argmax())
    torch.testing.assert_close(result.tokens[0, end], result.pooled[0])


def test_patches_of_a_flat_picture_pool_to_its_embedding() -> None:
    """A tower that takes the mean of its places and has a linear head: the mean of the patches is the
    embedding."""
    torch.manual_seed(0)
    model = load_dual_encoder("resnet18").eval()
    images = torch.randint(0, 256, (2, 3, *model.transform.size), dtype=torch.uint8)
    patches = patch_tokens(model, images)
    assert patches.shape == (2, 49, 512)
    torch.testing.assert_close(patches.mean(1), model.encode_image(images), atol=1e-4, rtol=1e-3)


def test_patches_lie_in_the_order_of_rows(model) -> None:
    height, width = model.transform.size
    images = torch.full((1, 3, height, width), 127, dtype=torch.uint8)
    before = patch_tokens(model, images)
    side = round(before.shape[1] ** 0.5)
    assert side**2 == before.shape[1] and before.shape[2] == model.dim
    images[:, :, : height // side, -(width // side) :] = 255  # the last place of the first row
    change = (patch_tokens(model, images) - before).norm(dim=-1)[0]
    assert change[side - 1] > change[(side - 1) * side]  # which the last row's first would be, by columns
    assert "forward_features" not in vars(getattr(model.clip.visual, "trunk", model.clip.visual))
