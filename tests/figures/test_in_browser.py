"""What only a browser shows of figures: the mode bar covers no heading, and tooltips can be read."""

from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from pandas import DataFrame, MultiIndex

from tests.browser import chromium
from workbench.figures.comparison import comparison_figure
from workbench.figures.display import CONFIG
from workbench.figures.lines import line_figure
from workbench.figures.training import training_figure
from workbench.figures.training_panels import Curves

pytestmark = pytest.mark.browser

# The headings that the mode bar's buttons lie on.
COVERED = """() => {
    const boxes = (selector) => [...document.querySelectorAll(selector)].map((part) =>
        [part.getBoundingClientRect(), part.textContent]);
    const texts = boxes('.gtitle, .gtitle-subtitle, .annotation-text');
    return boxes('.modebar-group').flatMap(([bar]) => texts.filter(([text]) =>
        text.left < bar.right && bar.left < text.right && text.top < bar.bottom && bar.top < text.bottom)
        .map(([_, words]) => words));
}"""


def comparison() -> go.Figure:
    rows = [("test", "text_to_image_r1"), ("test", "image_to_text_r1"), ("other", "text_to_image_r1")]
    fields = [("alone", "value"), ("alone", "spread")]
    fields += [("distilled", field) for field in ("value", "spread", "difference", "low", "high")]
    values = [[0.3, np.nan, 0.4, 0.01, 0.1, 0.05, 0.15]] * 3
    table = DataFrame(values, index=MultiIndex.from_tuples(rows), columns=MultiIndex.from_tuples(fields))
    return comparison_figure(table)


def training() -> go.Figure:
    steps = np.arange(1, 100)
    metrics = DataFrame({name: 1 / steps for name in ("loss", "scale", "gradient_norm", "lr")})
    recorded = Curves(metrics.assign(step=steps), DataFrame())
    return training_figure(recorded, "a run, seed 0", "running · " + "step 99 of 100 · " * 3)


def lines() -> go.Figure:
    return line_figure({"a": ([1, 2, 3], [1, 2, 3])}, title="a title", subtitle="what it says")


def test_headings_are_free_and_tooltips_are_dark(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for figure in (comparison(), training(), lines()):
            page = tmp_path / "figure.html"
            figure.write_html(page, include_plotlyjs="directory", config=CONFIG | {"displayModeBar": True})
            tab = browser.new_page(viewport={"width": 1000, "height": 900})
            tab.goto(page.as_uri())
            tab.wait_for_selector(".modebar-group")
            assert tab.evaluate(COVERED) == []
            assert tab.locator("[data-title^=Share]").count() == 0
        dot = tab.locator(".scatterlayer .point").nth(1).bounding_box()
        assert dot is not None
        tab.mouse.move(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2, steps=4)
        letters = tab.locator(".hoverlayer .hovertext text").first
        letters.wait_for()
        assert letters.evaluate("text => getComputedStyle(text).fill") == "rgb(31, 41, 51)"
        browser.close()


@pytest.mark.parametrize("recalls", [[0.002], [0.25], [1.0], [0.0, 0.0], [0.001, 0.003], [0.1, 0.4]])
def test_ticks_of_shares_have_names_of_their_own(tmp_path: Path, recalls: list[float]) -> None:
    from playwright.sync_api import sync_playwright

    steps = 10 * np.arange(1, 1 + len(recalls))
    validations = DataFrame({"step": steps, "text_to_image_r1": recalls, "image_to_text_r1": recalls})
    figure = training_figure(Curves(DataFrame(), validations))
    page = tmp_path / "figure.html"
    figure.write_html(page, include_plotlyjs="directory", config=CONFIG)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1000, "height": 600})
        tab.goto(page.as_uri())
        tab.wait_for_selector(".ytick")
        names = tab.locator(".ytick").all_text_contents()
        browser.close()
    shares = [float(name.rstrip("%")) for name in names]
    assert len(set(shares)) == len(shares) > 2 and min(shares) == 0 and max(shares) <= 100
