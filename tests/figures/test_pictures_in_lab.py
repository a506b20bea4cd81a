"""Figures with pictures in JupyterLab's dark theme: a saved one keeps the pictures' colours."""

from pathlib import Path

import nbformat
import pytest

from tests.browser import jupyter_lab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PATIENCE = 240  # seconds; a machine with nothing else to do needs a tenth
FIGURES = (
    """
import numpy as np
from workbench.batch.notebook_inputs import check_parameters
from workbench.figures import line_figure, picture_with_boxes

check_parameters()""",
    """
picture_with_boxes(np.zeros((3, 64, 64), np.uint8), np.array([[8, 8, 40, 40]]))""",
    """
line_figure({"a": ([1, 2, 3], [1, 2, 3])}, title="a line")""",
)
FILTERS = "[...document.querySelectorAll('img.plot-img')].map(image => getComputedStyle(image).filter)"


def test_a_saved_figure_is_inverted_unless_it_holds_a_picture(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code.strip()) for code in FIGURES])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "figures.ipynb")
    with jupyter_lab(tmp_path, {"PYTHONPATH": str(ROOT)}) as lab, lab.open("figures.ipynb") as page:
        page.run_all(PATIENCE)
        assert page.errors() == []
        page.wait_for(lambda page: page.figures() == 2, PATIENCE, "two figures")
        page.wait_for(lambda page: str(page.outputs()).count("'image/png':") == 2, PATIENCE, "images")
        page.save()
        page.reopen()
        page.tab.evaluate(
            "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
        )
        page.tab.wait_for_function("() => document.body.dataset.jpThemeLight === 'false'")
        page.screenshot(tmp_path / "dark.png")
        picture, line = page.tab.evaluate(FILTERS)
        assert picture == "none" and "invert" in line
        assert page.tab.locator(".jp-OutputArea-child:visible").count() == 2
