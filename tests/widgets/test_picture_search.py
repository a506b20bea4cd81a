"""Picture search: the widget knows no models, and answers in HTML."""

import io
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from PIL import Image

from workbench.data.decode import decode_image
from workbench.widgets import PictureSearch


class Colours:
    names = ("red", "green", "blue")

    def image(self, row: int) -> np.ndarray:
        pixels = np.zeros((3, 16, 16), np.uint8)
        pixels[row] = 255
        return pixels

    def captions(self, row: int) -> list[str]:
        return [f"all {self.names[row]} <script>", "another caption"]


def words(text: str, best: int) -> list[tuple[int, float]]:
    scored = [(row, float(name in text)) for row, name in enumerate(Colours.names)]
    return sorted(scored, key=lambda hit: -hit[1])[:best]


def picture(data: bytes, best: int) -> list[tuple[int, float]]:
    mean = decode_image(data).float().mean((1, 2))
    return [(int(mean.argmax()), float(mean.max()))][:best]


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_words_and_pictures() -> None:
    search = PictureSearch(Colours(), words, picture, best=2)
    result = search.show("something green & <b>")
    assert result.count("<img") == 2
    assert result.index("all green &lt;script&gt;") < result.index("all red")
    assert "<b>" not in result and "<script" not in result
    assert "all blue" in search.show(png("blue"))


def test_headless_shows_the_first_answer(shown: list[dict[str, Any]]) -> None:
    PictureSearch(Colours(), words, query="blue")._ipython_display_()
    assert len(shown) == 1
    assert "all blue" in shown[0]["text/html"]


def test_several_searches_answer_below_one_another() -> None:
    answer = PictureSearch(Colours(), {"teacher": words, "a <student>": words}, best=1).show("green")
    assert answer.count("<img") == 2
    assert answer.index("teacher: “green”") < answer.index("a &lt;student&gt;: “green”")


def test_a_file_that_is_no_picture_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    search = PictureSearch(Colours(), words, picture)
    answer = search._answer(b"<html>no picture</html>")
    assert "not a readable picture" in answer and "HTML" in answer


def test_a_search_without_pictures() -> None:
    with pytest.raises(ValueError, match="only text"):
        PictureSearch(Colours(), words).show(png("red"))


def test_the_widget_answers_what_is_typed() -> None:
    answers: list[str] = []
    box, button = PictureSearch(Colours(), words, picture, live=True)._widget(answers.append).children
    box.value = "blue"
    assert "“blue”" in answers[-1]
    box.value = "  "
    assert len(answers) == 1
    file = {"content": memoryview(png("green")), "name": "a.png", "type": "", "size": 1}
    button.value = (file | {"last_modified": datetime.now(UTC)},)
    assert "Most like your picture" in answers[-1] and "all green" in answers[-1]
