"""What the explorer answers; that a browser draws and clicks is tested in JupyterLab
(test_attention_in_browser.py)."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from workbench.widgets import AttentionExample, AttentionExplorer
from workbench.widgets.attention_example import region_at

HEADS = 3
BOXES = np.array([[0.0, 0, 40, 40], [10, 10, 20, 20], [50, 50, 60, 60]])


def softmax(values: np.ndarray) -> np.ndarray:
    return np.exp(values) / np.exp(values).sum(-1, keepdims=True)


def example(words: int = 5, boxes: np.ndarray = BOXES, seed: int = 0, **other: Any) -> AttentionExample:
    rng, regions = np.random.default_rng(seed), max(1, len(boxes))
    values = {
        "image": torch.zeros((3, 64, 64), dtype=torch.uint8),
        "words": [f"word{number}" for number in range(words)],
        "boxes": boxes,
        "region_weights": softmax(rng.normal(size=regions)),
        "token_to_region": {
            stage: softmax(scale * rng.normal(size=(HEADS, words, regions)))
            for stage, scale in (("before", 0.2), ("after", 2))
        },
        "region_to_token": {
            stage: torch.from_numpy(softmax(scale * rng.normal(size=(HEADS, regions, words))))
            for stage, scale in (("before", 0.2), ("after", 2))
        },
        "token_pooling": np.full(words, 1 / words),
        "region_pooling": np.full(regions, 1 / regions),
        "title": f"example {seed}",
    }
    return AttentionExample(**(values | other))


def trace(figure: Any, name: str) -> Any:
    return next(trace for trace in figure.data if trace.name == name)


def labels(figure: Any) -> list[str]:
    return [item.text for item in figure.layout.annotations if item.bgcolor]


def test_first_comes_the_mean_of_the_heads_of_the_last_stage() -> None:
    given = example()
    made = AttentionExplorer([given])
    np.testing.assert_allclose(made.token_to_region, given.token_to_region["after"].mean(0))
    np.testing.assert_allclose(made.region_to_token, given.region_to_token["after"].numpy().mean(0))
    figure = made.figure
    np.testing.assert_allclose(trace(figure, "token to region").z, made.token_to_region, rtol=1e-6)
    np.testing.assert_allclose(trace(figure, "region to token").z, made.region_to_token.T, rtol=1e-6)
    assert labels(figure) == ["1", "2", "3"]
    assert not any(item.name == "chosen" for item in figure.data)
    made.choose(head=2, stage="before")
    np.testing.assert_allclose(made.token_to_region, given.token_to_region["before"][2])
    assert "before · head 3" in made.figure.layout.title.subtitle.text


def test_a_word_lights_up_regions_and_is_released() -> None:
    made = AttentionExplorer([example()])
    plain = trace(made.figure, "picture").source
    made.click({"word": 3})
    figure = made.figure
    shares = made.token_to_region[3]
    expected = [f"{n} · {v:.0%}" if v >= 0.05 else str(n) for n, v in enumerate(shares, start=1)]
    assert labels(figure) == expected
    assert trace(figure, "picture").source != plain
    frame = trace(figure, "chosen")
    assert (frame.yaxis, min(frame.y), max(frame.y)) == ("y2", 2.5, 3.5)
    assert "what “word3” looks at" in figure.layout.title.subtitle.text
    made.click({"word": 3})
    assert made.words == [] and trace(made.figure, "picture").source == plain


def test_several_words_are_selected_together() -> None:
    made = AttentionExplorer([example()])
    made.click({"word": 3})
    made.click({"word": 1, "more": True})
    assert made.words == [3, 1]
    figure = made.figure
    shares = made.token_to_region[[3, 1]].mean(0)
    assert labels(figure) == [
        f"{n} · {v:.0%}" if v >= 0.05 else str(n) for n, v in enumerate(shares, start=1)
    ]
    assert "what “word3”, “word1” look at" in figure.layout.title.subtitle.text
    assert len([trace for trace in figure.data if trace.name == "chosen"]) == 2
    bold = {note.text: note.font.color for note in figure.layout.annotations if note.text.startswith("<b>")}
    assert list(bold) == ["<b>word1</b>", "<b>word3</b>"] and len(set(bold.values())) == 2
    made.click({"word": 3, "more": True})
    assert made.words == [1]
    made.click({"word": 2})
    assert made.words == [2]


def test_patches_are_a_heat_map_in_each_words_colour() -> None:
    """4 x 4 patches of the middle of a wide picture: word 0 looks at the first, word 1 at the last."""
    y, x = np.divmod(np.arange(16), 4)
    boxes = np.stack([16 + 8 * x, 8 * y, 24 + 8 * x, 8 * y + 8], axis=1).astype(float)
    attention = np.full((1, 2, 16), 0.01)
    attention[0, 0, 0] = attention[0, 1, 15] = 0.85
    given = AttentionExample(
        np.full((3, 32, 64), 128, np.uint8), ["cat", "dog"], boxes, np.ones(16), {"one": attention},
        {"one": np.full((1, 16, 2), 0.5)}, np.full(2, 0.5), np.full(16, 1 / 16), grid=(4, 4),
    )  # fmt: skip
    made = AttentionExplorer([given], live=True)
    view = made._widget(lambda figure: None).children[1]
    assert json.loads(view.shown)["regions"] == []
    assert "what all words look at" in made.figure.layout.title.subtitle.text
    view._handle_custom_msg({"word": 0}, [])
    view._handle_custom_msg({"word": 1, "more": True}, [])
    chosen = [item["chosen"] for item in json.loads(view.shown)["words"]]
    pixels = decoded(trace(made.figure, "picture").source)
    for (row, column), colour in zip(((2, 18), (30, 46)), chosen, strict=True):
        tint = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)], dtype=float)
        tinted = pixels[:, row, column].astype(float)
        assert np.corrcoef(tinted, tint)[0, 1] > 0.99
    assert np.ptp(pixels[:, 16, 4]) == 0 and np.ptp(pixels[:, 16, 60]) == 0  # outside of what the tower sees
    assert not any(trace.name == "boxes" for trace in made.figure.data)
    made.click({"at": [60.0, 10.0]})  # no patch
    assert made.region is None
    made.click({"at": [17.0, 1.0]})
    assert made.region == 0 and any(trace.name == "boxes" for trace in made.figure.data)


def decoded(source: str) -> np.ndarray:
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1)


def test_a_region_is_chosen_by_number_or_in_the_picture() -> None:
    made = AttentionExplorer([example()])
    made.click({"word": 1})
    made.click({"at": [15.0, 15.0]})  # in two boxes: the smaller one
    assert (made.words, made.region) == ([], 1)
    frame = trace(made.figure, "chosen")
    assert (frame.xaxis, min(frame.x), max(frame.x)) == ("x3", 0.5, 1.5)
    made.click({"at": [30.0, 30.0]})
    assert made.region == 0
    made.click({"at": [45.0, 2.0]})  # no box
    assert (made.words, made.region) == ([], None)
    made.click({"region": 2})
    assert made.region == 2
    made.click({"at": [55.0, 55.0]})
    assert made.region is None


def test_the_region_under_the_mouse() -> None:
    assert [region_at(BOXES, *place) for place in ((0.0, 0.0), (10.0, 20.0), (41.0, 0.0), (60.0, 55.0))] == [
        0,
        1,
        None,
        2,
    ]


def test_colours_mean_the_same_in_every_stage() -> None:
    made = AttentionExplorer([example()])
    darkest = {stage: None for stage in made.stages}
    for stage in made.stages:
        made.choose(stage=stage)
        darkest[stage] = trace(made.figure, "token to region").zmax
    assert len(set(darkest.values())) == 1
    assert darkest["after"] == pytest.approx(example().token_to_region["after"].mean(0).max())


def controls(widget: Any) -> dict[str, Any]:
    return {child.description: child for child in widget.children[0].children}


def test_the_widget_answers_what_a_browser_sends() -> None:
    asked = []

    def pool(number: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
        asked.append((number, temperature))
        words = len(made.examples[number].words)
        return softmax(np.arange(words) / temperature), np.full(3, 1 / 3)

    made = AttentionExplorer([example(), example(7, seed=1)], pool=pool, live=True)
    changed: list[Any] = []
    widget = made._widget(changed.append)
    view = widget.children[1]

    def shown() -> dict[str, Any]:
        return json.loads(view.shown)

    assert [item["text"] for item in shown()["words"]] == [f"word{n}" for n in range(5)]
    assert all(item["share"] == "" and not item["chosen"] for item in shown()["words"] + shown()["regions"])

    view._handle_custom_msg({"region": 1}, [])
    shares = made.region_to_token[1]
    assert [item["share"] for item in shown()["words"]] == [f"{share:.0%}" for share in shares]
    strengths = [item["strength"] for item in shown()["words"]]
    assert np.argsort(strengths).tolist() == np.argsort(shares).tolist() and max(strengths) <= 1
    assert [bool(item["chosen"]) for item in shown()["regions"]] == [False, True, False]
    view._handle_custom_msg({"word": 2}, [])
    assert [item["share"] for item in shown()["regions"]] == [f"{v:.0%}" for v in made.token_to_region[2]]

    controls(widget)["head"].value = 1
    assert made.head == 1 and made.words == [2]
    controls(widget)[""].value = "before"
    assert made.stage == "before"
    controls(widget)["pooling temperature"].value = 0.5
    assert asked[-1] == (0, 0.5)
    bars = next(item for item in changed[-1].data if item.name == "token pooling")
    np.testing.assert_allclose(bars.x, softmax(np.arange(5) / 0.5), rtol=1e-5)
    controls(widget)["example"].value = 1
    assert len(shown()["words"]) == 7 and made.words == []
    # The copy that stays is what is shown.
    assert json.loads(changed[-1].to_json()) == shown()["figure"]


@pytest.mark.parametrize("boxes", [np.empty((0, 4)), np.array([[0.0, 0, 64, 64]])])
def test_one_word_and_the_whole_picture(boxes: np.ndarray) -> None:
    made = AttentionExplorer([example(1, boxes)])
    assert made.examples[0].boxes.tolist() == [[0, 0, 64, 64]]
    made.click({"word": 0})
    assert labels(made.figure) == ["1 · 100%"]
    made.click({"at": [3, 60]})
    assert made.region == 0 and len(made.figure.data) > 6


def test_headless_it_is_a_plain_figure(shown: list[dict[str, Any]]) -> None:
    AttentionExplorer([example()])._ipython_display_()  # WORKBENCH_HEADLESS=1 in tests
    assert len(shown) == 1 and shown[0]["text/plain"] == "<example 0>"


def test_what_does_not_fit_is_refused() -> None:
    good = example()
    wrong = [
        {"token_pooling": np.ones(4)},
        {"region_weights": np.ones(2)},
        {"token_to_region": good.region_to_token},
        {"region_to_token": {"after": good.region_to_token["after"]}},
        {"words": ["one"]},
    ]
    for change in wrong:
        with pytest.raises(ValueError, match="words and 3 regions need"):
            AttentionExplorer([good._replace(**change)])
    with pytest.raises(ValueError, match="a grid of 2 x 2 has not 3 regions"):
        AttentionExplorer([good._replace(grid=(2, 2))])
    fewer = {stage: item[:2] for stage, item in good.token_to_region.items()}
    back = {stage: item[:2] for stage, item in good.region_to_token.items()}
    with pytest.raises(ValueError, match="same stages and number of heads"):
        AttentionExplorer([good, good._replace(token_to_region=fewer, region_to_token=back)])
    with pytest.raises(ValueError, match="at least one example"):
        AttentionExplorer([])


def test_beyond_the_prior_only_what_was_learned_is_left() -> None:
    """Attention that is nothing but the weights of regions is even without them."""
    weights = np.array([0.7, 0.2, 0.1])
    learned = np.array([[1.0, 1.0, 1.0], [1.0, 8.0, 1.0]])
    biased = learned * weights
    stages = {"trained": (biased / biased.sum(-1, keepdims=True))[None].repeat(2, 0)}
    boxes = np.array([[0.0, 0, 20, 20], [20, 20, 40, 40], [40, 40, 64, 64]])
    back = {"trained": np.full((2, 3, 2), 0.5)}
    picture = np.zeros((3, 64, 64), np.uint8)
    made = AttentionExplorer(
        [AttentionExample(picture, ["a", "b"], boxes, weights, stages, back, np.ones(2) / 2, np.ones(3) / 3)],
        live=True,
    )
    assert "with the prior" in made.figure.layout.title.subtitle.text
    assert made.token_to_region[0].argmax() == 0
    box = made._widget(lambda figure: None).children[0].children[3]
    assert box.description == "beyond the prior"
    box.value = True
    np.testing.assert_allclose(made.token_to_region, learned / learned.sum(-1, keepdims=True))
    assert "beyond the prior" in made.figure.layout.title.subtitle.text
    other = AttentionExplorer([made.examples[0]._replace(unweighted=["trained"])])
    other.choose(without_prior=True)  # there is no prior in this stage to divide out
    np.testing.assert_allclose(other.token_to_region, stages["trained"][0])
    assert "prior" not in other.figure.layout.title.subtitle.text
    alike = made.examples[0]._replace(region_weights=np.ones(3))
    assert "prior" not in AttentionExplorer([alike]).figure.layout.title.subtitle.text
