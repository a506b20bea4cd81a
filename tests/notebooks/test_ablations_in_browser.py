"""Notebook 07 in JupyterLab: tables and figures of the shipped results, a name clicked away, an axis dragged
along; opened again, all is there without a kernel."""

import shutil
from pathlib import Path

import pytest

from tests.browser import jupyter_lab
from workbench.batch.notebook_runner import NOTEBOOKS

NAME = "07_ablations.ipynb"
HIDDEN = """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data ?? [])
    .filter(trace => trace.visible === 'legendonly').length"""
KEPT = """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => plot.data ?? [])
    .filter(trace => trace.type === 'parcoords').flatMap(trace => trace.dimensions)
    .filter(axis => axis.constraintrange).length"""


@pytest.mark.browser
@pytest.mark.slow
def test_the_ablations_answer(tmp_path: Path) -> None:
    shutil.copy(NOTEBOOKS / NAME, tmp_path)
    with jupyter_lab(tmp_path) as lab, lab.open(NAME, width=1400) as page:
        page.run_all(timeout=300)
        assert page.errors() == []
        tab = page.tab
        # Teachers' ages and parallel coordinates; more where more results are shipped.
        page.wait_for(lambda page: page.figures() >= 2, 60, "two figures")
        count = page.figures()
        assert tab.locator("table").count() >= 3

        name = tab.locator(".legendtoggle").first
        name.scroll_into_view_if_needed()
        name.click()
        page.wait_for(lambda page: page.tab.evaluate(HIDDEN) == 1, 30, "a name's curve hidden")

        axis = tab.locator(".parcoords .axis-brush .background").nth(1)
        axis.scroll_into_view_if_needed()
        box = axis.bounding_box()
        assert box is not None
        tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.2 * box["height"])
        tab.mouse.down()
        tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.6 * box["height"], steps=8)
        tab.mouse.up()
        page.wait_for(lambda page: page.tab.evaluate(KEPT) == 1, 30, "an axis that keeps a part of the lines")

        page.save()
        page.reopen()
        page.wait_for(lambda page: page.figures() == count, 60, "the figures without a kernel")
        assert page.errors() == []
