import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from workbench.cli import app
from workbench.errors import SettingError
from workbench.evaluation.probes.exact_match import (
    Probe,
    captioning,
    exact_match,
    normalise,
    summary,
    token_f1,
    train_caption_decoder,
    train_decoder,
)
from workbench.models.caption_decoder import load_caption_decoder, small_caption_decoder
from workbench.recipe import Recipe

CAPTIONS = [
    f"a {size} {colour} {thing}"
    for size in ("small", "large")
    for colour in ("red", "green", "blue")
    for thing in ("apple", "car", "tree", "dog")
]


@pytest.fixture(scope="module")
def decoder():
    made = small_caption_decoder(CAPTIONS, dim=32, layers=1)
    train_decoder(made, CAPTIONS * 4, steps=300, batch=48, lr=1e-2)
    return made


def test_exact_match_raw_and_normalised() -> None:
    result = exact_match(
        ["A  dog", "a cat", "ﬁve pears on it now"], ["a dog", "a cat", "five pears on it again"]
    )
    assert result.raw.tolist() == [False, True, False]
    assert result.normalised.tolist() == [True, True, False]
    assert result.words.tolist() == [2, 2, 5]
    assert result.by_length() == {"1-5": (pytest.approx(2 / 3), 3)}
    assert summary(result) == {
        "exact_match": pytest.approx(2 / 3), "exact_match_raw": pytest.approx(1 / 3),
        "token_f1": pytest.approx((1 + 1 + 0.8) / 3),
    }  # fmt: skip
    longer = exact_match([" ".join("a" * n) for n in (5, 7, 20)], [" ".join("a" * n) for n in (5, 7, 21)])
    assert longer.by_length() == {"1-5": (1.0, 1), "6-8": (1.0, 1), "13+": (0.0, 1)}


def test_token_f1_counts_words_as_often_as_they_stand() -> None:
    assert token_f1("a a b", "a b b") == pytest.approx(2 / 3)
    assert token_f1("x", "y") == 0 and token_f1("", "") == 1 and token_f1("", "y") == 0
    assert normalise("Ａ  Dog\n") == "a dog"


def test_captioning_recall() -> None:
    result = captioning(
        ["a small hot dog on a green background", "a dog"],
        [["a hot dog", "a small hot dog on green"], ["a cat"]],
        [["hot dog", "cat"], []],
        [{"green", "small"}, {"red"}],
    )
    assert result.token_f1[0] == pytest.approx(2 * 6 / (8 + 6)) and result.token_f1[1] == pytest.approx(0.5)
    assert result.object_recall[0] == 0.5 and np.isnan(result.object_recall[1])
    assert result.attribute_recall.tolist() == [1, 0]
    assert captioning(["a hotdog"], [["a dog"]], [["dog"]], [{}]).object_recall[0] == 0  # words, not letters


def test_a_probe_reads_what_an_encoder_holds_and_not_what_it_lacks(decoder) -> None:
    """An encoder that turns the vectors keeps the captions; one that forgets colours has lost them."""
    with torch.no_grad():
        vectors = decoder.vectors(CAPTIONS)
    turn = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)))[0]
    colour = {word: n for n, word in enumerate(("red", "green", "blue"))}
    blind = torch.stack(
        [
            vectors[
                [n for n, other in enumerate(CAPTIONS) if strip(other, colour) == strip(caption, colour)]
            ].mean(0)
            for caption in CAPTIONS
        ]
    )
    torch.manual_seed(0)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    scores = {}
    for name, embeddings in {"turned": vectors @ turn, "blind": blind}.items():
        probe = Probe(decoder, 32).fit(embeddings, CAPTIONS, steps=200, batch=24, lr=1e-2)
        scores[name] = exact_match(probe.write(embeddings), CAPTIONS)
    assert scores["turned"].raw.mean() > 0.9
    assert scores["blind"].raw.mean() <= 1 / 3 + 0.01
    assert scores["blind"].token_f1.mean() > 0.6  # size and thing are still there
    assert all(torch.equal(before[name], value) for name, value in decoder.state_dict().items())
    assert all(parameter.requires_grad for parameter in decoder.parameters())
    assert not [name for name, _ in probe.named_parameters() if "t5" in name]


def strip(caption: str, words) -> str:
    return " ".join(word for word in caption.split() if word not in words)


@pytest.fixture(scope="module")
def own_captions(tmp_path_factory):
    """A table of pictures with captions of its own: its training split holds every word."""
    folder = tmp_path_factory.mktemp("own")
    lines = []
    for number, caption in enumerate(CAPTIONS * 2):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 0)).save(folder / f"{number}.png")
        split = "train" if number < len(CAPTIONS) else "val"
        lines.append({"image": f"{number}.png", "caption": caption, "split": split})
    (folder / "captions.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder / "captions.jsonl"


def test_a_decoder_of_ones_own_captions(own_captions, tmp_path) -> None:
    folder = tmp_path / "decoder"
    settings = ["--set", f"data.source={own_captions}", "--steps", "200", "--batch", "24", "--lr", "5e-3"]
    printed = CliRunner().invoke(
        app.app, ["train-decoder", "task_only_demo", str(folder), *settings], catch_exceptions=False
    )
    assert printed.exit_code == 0 and f"evaluation.decoder: {folder}" in printed.output
    assert f"trained on {len(CAPTIONS)} captions" in printed.output
    loaded = load_caption_decoder(str(folder))
    written = loaded.write(loaded.vectors(CAPTIONS))
    assert exact_match(written, CAPTIONS).token_f1.mean() > 0.6  # untrained: 0


def test_a_t5_learns_too_and_nothing_is_overwritten(own_captions, tmp_path) -> None:
    recipe = Recipe.load("task_only_demo", {"data.source": str(own_captions)})
    train_caption_decoder(recipe, tmp_path / "t5", steps=2, batch=8)
    match, captions = train_caption_decoder(
        recipe, tmp_path / "again", decoder=str(tmp_path / "t5"), steps=2, batch=8
    )
    assert captions == len(CAPTIONS) and len(match.raw) == len(CAPTIONS)
    with pytest.raises(SettingError, match="a decoder lies there already"):
        train_caption_decoder(recipe, tmp_path / "t5", steps=2, batch=8)
    with pytest.raises(SettingError, match=r"decoder = 't5-nowhere'.*cannot be loaded"):
        train_caption_decoder(recipe, tmp_path / "new", decoder="t5-nowhere", steps=2)
