"""Notebook 02 in JupyterLab: hover, lasso, slider and the joined pairs do what they say."""

import shutil
from pathlib import Path

import pytest

from tests.browser import jupyter_lab
from workbench.batch.notebook_runner import NOTEBOOKS

NAME = "02_concept_clusters.ipynb"
WIDGETS = "() => [...document.querySelectorAll('.widget-html-content')].map(each => each.innerHTML)"


@pytest.mark.browser
@pytest.mark.slow
def test_the_map_answers(tmp_path: Path) -> None:
    shutil.copy(NOTEBOOKS / NAME, tmp_path)
    with jupyter_lab(tmp_path) as lab, lab.open(NAME) as page:
        page.run_all(timeout=600)
        assert page.errors() == []
        tab = page.tab
        tab.wait_for_selector(".js-plotly-plot .main-svg")
        tab.wait_for_function("() => document.querySelectorAll('.js-plotly-plot').length >= 2")
        # Behind each widget lies its static copy, which is hidden.
        first, second = tab.locator(".js-plotly-plot:visible").element_handles()[:2]
        first.scroll_into_view_if_needed()
        box = first.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

        def told() -> str:
            return " ".join(tab.evaluate(WIDGETS))

        for step in range(200):  # dots lie everywhere, but not under every pixel
            tab.mouse.move(x - 100 + step, y + step % 7)
            tab.wait_for_timeout(80)
            if "<img" in told():
                break
        assert "concept:" in told() and "data:image/png" in told()

        tab.mouse.move(x - 60, y - 60)
        tab.mouse.down()
        for dx, dy in ((60, -60), (60, 60), (-60, 60), (-60, -60)):
            tab.mouse.move(x + dx, y + dy, steps=8)
        tab.mouse.up()
        tab.wait_for_function(f"() => ({WIDGETS})().join(' ').includes('pictures selected')")

        tab.query_selector(".widget-slider .noUi-handle").focus()
        tab.keyboard.press("ArrowRight")
        tab.wait_for_function(f"() => ({WIDGETS})().join(' ').includes('purity')")
        # The lasso and its list outlive the new colours.
        assert "pictures selected" in " ".join(tab.evaluate(WIDGETS))
        assert first.evaluate(
            "plot => plot.layout.selections.length > 0 && plot.data[0].selectedpoints != null"
        )

        second.scroll_into_view_if_needed()
        tab.query_selector(".widget-checkbox:has-text('connect captions') input").click()
        tab.wait_for_function(
            "() => [...document.querySelectorAll('.js-plotly-plot')].some(each => each.data.some("
            "trace => trace.mode === 'lines'))"
        )
