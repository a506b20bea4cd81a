"""The attention explorer in JupyterLab: words and regions answer clicks, head and temperature move the
figure, and the saved notebook shows it without a kernel."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.browser import Page, jupyter_lab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PATIENCE = 240  # seconds; a machine with nothing else to do needs a tenth
PLOT = ".workbench-attention .js-plotly-plot"

NOTEBOOK = """
import numpy as np, workbench
from workbench.widgets import AttentionExample, AttentionExplorer

rng = np.random.default_rng(0)
pairs = workbench.load_pairs("scenes", "test", scenes=20)

def softmax(values):
    return np.exp(values) / np.exp(values).sum(-1, keepdims=True)

def attention(words, regions):
    return {"before training": softmax(rng.normal(size=(4, words, regions)) / 2),
            "after training": softmax(2 * rng.normal(size=(4, words, regions)))}

def example(row, caption):
    words, boxes = pairs.captions(row)[caption].split(), np.array(pairs.details(row)["boxes"])
    s, r = len(words), len(boxes)
    return AttentionExample(
        pairs.image(row), words, boxes, softmax(rng.normal(size=r)), attention(s, r), attention(r, s),
        np.full(s, 1 / s), np.full(r, 1 / r), pairs.captions(row)[caption])

examples = [example(4, 1), example(7, 3), example(0, 0)]
scores = [(rng.normal(size=len(each.words)), rng.normal(size=len(each.boxes))) for each in examples]

def pool(number, temperature):
    return tuple(softmax(score / temperature) for score in scores[number])

AttentionExplorer(examples, pool=pool)
"""


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK.strip())])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "attention.ipynb")
    with (
        jupyter_lab(tmp_path, {"PYTHONPATH": str(ROOT)}) as lab,
        lab.open("attention.ipynb") as opened,
    ):
        opened.run_all(PATIENCE)
        opened.tab.wait_for_selector(f"{PLOT} .main-svg", timeout=PATIENCE * 1000)
        assert opened.errors() == []
        yield opened


def subtitle(page: Page) -> str:
    return str(page.tab.evaluate(f"document.querySelector('{PLOT}').layout.title.subtitle.text"))


def labels(page: Page) -> list[str]:
    """What stands in the picture: region numbers, and shares where a word is chosen."""
    return page.tab.evaluate(
        f"document.querySelector('{PLOT}').layout.annotations"
        ".filter(each => each.bgcolor).map(each => each.text)"
    )


def trace(page: Page, name: str) -> dict[str, Any]:
    """A trace as the browser has it."""
    return page.tab.evaluate(
        f"""name => {{
            const found = document.querySelector('{PLOT}')._fullData.find(each => each.name === name);
            return {{source: found.source, x: [...(found.x ?? [])], z: (found.z ?? []).map(row => [...row])}};
        }}""",
        name,
    )


def shares(page: Page, kind: str) -> list[str]:
    return page.tab.locator(f".workbench-attention .{kind} small").all_inner_texts()


def click_in_picture(page: Page, x: float, y: float) -> None:
    """Click on a pixel of the 64 x 64 picture."""
    place = page.tab.locator(f"{PLOT} .imagelayer image").first.bounding_box()
    assert place is not None
    page.tab.mouse.move(place["x"] + place["width"] * x / 64, place["y"] + place["height"] * y / 64, steps=3)
    page.tab.wait_for_timeout(200)
    page.tab.mouse.click(
        place["x"] + place["width"] * x / 64, place["y"] + place["height"] * y / 64, delay=30
    )


def test_words_and_regions_answer(page: Page, tmp_path: Path) -> None:
    tab = page.tab
    tab.locator(PLOT).scroll_into_view_if_needed()
    page.screenshot(tmp_path / "first.png")
    plain = trace(page, "picture")["source"]
    assert labels(page) == ["1", "2", "3"] and set("".join(shares(page, "word")).split()) == set()

    tab.locator(".workbench-attention .word").nth(8).click()
    page.wait_for(lambda page: "gloves" in subtitle(page), PATIENCE, "what a word looks at")
    assert any("%" in label for label in labels(page))
    assert trace(page, "picture")["source"] != plain
    assert all("%" in share for share in shares(page, "region"))
    assert (
        tab.locator(".workbench-attention .word[aria-pressed=true]").all_inner_texts()[0].startswith("gloves")
    )
    page.screenshot(tmp_path / "word.png")

    tab.locator(".workbench-attention .word").nth(0).click(modifiers=["Shift"])
    page.wait_for(
        lambda page: "“gloves,”, “a” look at" in subtitle(page), PATIENCE, "a second word, with Shift"
    )

    # The rhinoceros: a box in the picture.
    click_in_picture(page, 35, 32)
    page.wait_for(lambda page: "region 3 looks at" in subtitle(page), PATIENCE, "what a region looks at")
    assert all("%" in share for share in shares(page, "word")) and labels(page) == ["1", "2", "3"]
    colours = tab.evaluate(
        "[...document.querySelectorAll('.workbench-attention .word')]"
        ".map(each => getComputedStyle(each).backgroundColor)"
    )
    assert len(set(colours)) > 5
    page.screenshot(tmp_path / "region.png")
    click_in_picture(page, 35, 32)
    page.wait_for(lambda page: "thicker outlines" in subtitle(page), PATIENCE, "a region released")

    tab.locator(".workbench-attention .region").nth(1).click()
    page.wait_for(lambda page: "region 2 looks at" in subtitle(page), PATIENCE, "a region by its button")

    place = tab.locator(f"{PLOT} .heatmaplayer image").first.bounding_box()
    assert place is not None
    tab.mouse.move(place["x"] + 20, place["y"] + 0.5 * place["height"] / 17, steps=3)
    tab.wait_for_timeout(200)
    tab.mouse.click(place["x"] + 20, place["y"] + 0.5 * place["height"] / 17, delay=30)
    page.wait_for(
        lambda page: "what “a” looks at" in subtitle(page), PATIENCE, "a word by its line in the map"
    )
    tab.locator(".workbench-attention .region").nth(1).click()
    page.wait_for(lambda page: "region 2 looks at" in subtitle(page), PATIENCE, "the region again")

    before = trace(page, "token to region")["z"]
    tab.locator(".widget-dropdown select").nth(1).select_option("3")
    page.wait_for(lambda page: "head 3" in subtitle(page), PATIENCE, "another head")
    assert trace(page, "token to region")["z"] != before
    tab.get_by_role("button", name="before training").click()
    page.wait_for(lambda page: "before training" in subtitle(page), PATIENCE, "the stage before training")

    bars = trace(page, "token pooling")["x"]
    tab.locator(".widget-slider .noUi-handle").focus()
    for _ in range(10):
        tab.keyboard.press("ArrowLeft")
    page.wait_for(lambda page: "temperature 0.63" in subtitle(page), PATIENCE, "another temperature")
    assert max(trace(page, "token pooling")["x"]) > 1.2 * max(bars)
    page.screenshot(tmp_path / "head.png")

    tab.locator(".widget-dropdown select").first.select_option(index=1)
    page.wait_for(lambda page: labels(page) == ["1", "2"], PATIENCE, "another example")
    page.screenshot(tmp_path / "example.png")
    assert page.errors() == []


def test_saved_it_is_a_figure(page: Page, tmp_path: Path) -> None:
    tab = page.tab
    assert tab.locator(".jp-OutputArea-child:visible").count() == 1
    tab.locator(".workbench-attention .word").nth(8).click()
    page.wait_for(lambda page: "gloves" in subtitle(page), PATIENCE, "what a word looks at")
    page.run_cell("pass")  # answered once the copy is updated, which comes after the widget
    page.save()
    page.reopen()
    page.wake()
    tab.wait_for_selector(".js-plotly-plot .main-svg")
    saved_figure = "document.querySelector('.js-plotly-plot').layout.title.subtitle.text"
    assert "gloves" in tab.evaluate(saved_figure)
    page.screenshot(tmp_path / "reopened.png")
