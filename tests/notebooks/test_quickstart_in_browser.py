"""The quickstart as a user runs it: JupyterLab in Chromium, every cell, live curves, saved and reopened."""

import json
from pathlib import Path

import pytest

from tests.browser import PLOTLY, jupyter_lab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PATIENCE = 600  # seconds; a machine with nothing else to do needs a tenth
SMALLER = {"scenes: int = 1000": "scenes: int = 300", 'out: str = ""': 'out: str = "here"'}


def test_quickstart_runs_moves_and_stays(tmp_path):
    notebook = json.loads((ROOT / "notebooks" / "00_quickstart.ipynb").read_text(encoding="utf-8"))
    parameters = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    source = "".join(parameters["source"])
    for before, after in SMALLER.items():
        assert before in source
        source = source.replace(before, after)
    parameters["source"] = source
    (tmp_path / "quickstart.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    with jupyter_lab(tmp_path, {"PYTHONPATH": str(ROOT)}) as lab, lab.open("quickstart.ipynb") as page:
        page.start_all()
        seen = [0.0]

        def moved(page):
            reach = page.reach()
            if reach and reach[0] > seen[-1]:
                seen.append(reach[0])
            return len(seen) > 3

        page.wait_for(moved, PATIENCE, "curves that grow while the first student trains")
        page.wait_idle(PATIENCE)
        assert page.errors() == []
        plots = sum(PLOTLY in output.get("data", {}) for cell in page.outputs() for output in cell)
        assert plots == 3, "two students and their comparison"

        box = page.tab.locator(".widget-text input")
        box.scroll_into_view_if_needed()
        cell = page.tab.locator(".jp-Cell", has=box)
        pictures = cell.locator(".jp-OutputArea-output img")
        first = pictures.first.get_attribute("src")
        box.fill("three animals on a green background")
        box.press("Enter")
        answered = "another best picture"
        page.wait_for(lambda _: pictures.first.get_attribute("src") != first, PATIENCE, answered)
        page.screenshot(tmp_path / "quickstart.png")
        page.save()
        assert "widgets" not in page.saved()["metadata"]
        page.reopen()
        assert page.figures() >= plots and page.errors() == []
