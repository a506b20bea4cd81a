"""Widgets in JupyterLab: as high as their figure however the window changes, and figures when opened again."""

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from tests.browser import Page, jupyter_lab

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
PATIENCE = 240  # seconds; a machine with nothing else to do needs a tenth
CLUSTERS = """
import numpy as np
from workbench.widgets import AttentionExample, AttentionExplorer, ClusterExplorer

class Pictures:
    def image(self, row):
        return np.full((3, 8, 8), row, np.uint8)
    def captions(self, row):
        return [f"picture {row}"]

rng = np.random.default_rng(0)
ClusterExplorer(rng.normal(size=(60, 2)), Pictures(), np.arange(60), [f"caption {n}" for n in range(60)],
                {"concept": np.arange(60) % 4, "category": np.arange(60) % 2})"""
ATTENTION = """
half = np.full((2, 2, 2), 0.5)
AttentionExplorer([AttentionExample(
    np.zeros((3, 64, 64), np.uint8), ["a", "b"], np.array([[0, 0, 32, 32], [32, 32, 64, 64]]), np.ones(2) / 2,
    {"trained": half}, {"trained": half}, np.ones(2) / 2, np.ones(2) / 2)])"""
PLOT = ".workbench-widget-1 .js-plotly-plot"
HEIGHTS = f"[...document.querySelectorAll('{PLOT} .svg-container')].map(plot => plot.clientHeight)"


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    cells = [nbformat.v4.new_code_cell(code.strip()) for code in (CLUSTERS, ATTENTION)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "saved.ipynb")
    with jupyter_lab(tmp_path, {"PYTHONPATH": str(ROOT)}) as lab, lab.open("saved.ipynb") as opened:
        opened.run_all(PATIENCE)
        opened.wait_for(lambda page: page.tab.locator(PLOT).count() == 2, PATIENCE, "two figures")
        yield opened


@pytest.mark.slow
def test_widgets_keep_their_height_and_leave_figures(page: Page, tmp_path: Path) -> None:
    tab = page.tab
    assert page.errors() == []
    assert tab.locator(".jp-OutputArea-child:visible").count() == 2  # copies are hidden
    heights = tab.evaluate(HEIGHTS)
    assert min(heights) > 300
    for width, height in ((900, 500), (1300, 800)):
        tab.set_viewport_size({"width": width, "height": height})
        tab.wait_for_timeout(1500)
        assert tab.evaluate(HEIGHTS) == heights
    buttons = tab.locator(f"{PLOT} .modebar-btn").evaluate_all(
        "all => all.map(button => button.dataset.title)"
    )
    assert buttons and not any("Share" in button for button in buttons)

    tab.locator(".widget-dropdown select").first.select_option("category")
    subtitle = "document.querySelector('{}').layout.title.subtitle.text"
    shown = subtitle.format(PLOT)
    page.wait_for(lambda page: "by category" in page.tab.evaluate(shown), PATIENCE, "other colours")
    page.screenshot(tmp_path / "live.png")
    page.save()
    page.reopen()
    page.wake()
    page.wait_for(lambda page: page.figures() == 2, PATIENCE, "two figures again")
    tab.wait_for_timeout(1000)
    page.screenshot(tmp_path / "reopened.png")
    for width, height in ((900, 500), (1300, 800)):
        tab.set_viewport_size({"width": width, "height": height})
        tab.wait_for_timeout(1500)
        assert tab.evaluate(HEIGHTS.replace(PLOT, ".js-plotly-plot")) == heights
    seen = " ".join(tab.locator(".jp-OutputArea-child:visible").all_inner_texts())
    assert "widget" not in seen and "VBox" not in seen and seen.count("As it was saved.") == 2
    assert "by category" in tab.evaluate(subtitle.format(".js-plotly-plot"))
    assert page.errors() == []
