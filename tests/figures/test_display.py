"""Figures as notebooks store them: with plotly.js once, no upload, and no widget where nobody watches."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import plotly.graph_objects as go
import plotly.io
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from tests.browser import chromium
from workbench.figures import display
from workbench.figures.display import CONFIG, MIME, figure_bundle, holds_library, is_unattended
from workbench.figures.lines import line_figure

CELLS = (
    "from workbench.figures import line_figure\nline_figure({'a': ([1, 2], [3, 4])}, title='one')",
    """import numpy as np
from workbench.figures import similarity_figure
similarity_figure({'start': np.ones((2, 2)), 'end': np.eye(2)}, np.eye(2), title='two')""",
    """import numpy as np
from workbench.widgets import ClusterExplorer
class Pictures: pass
ClusterExplorer(np.eye(2), Pictures(), np.arange(2), ["a", "b"], {"concept": [0, 1]}, title="map")""",
)


@pytest.fixture(scope="module")
def executed() -> nbformat.NotebookNode:
    """A notebook as nbconvert and papermill run it, with nothing in the environment that says so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WORKBENCH_HEADLESS")
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in CELLS])
        NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return notebook


def test_a_program_that_runs_notebooks_gets_figures_and_no_widgets(executed: nbformat.NotebookNode) -> None:
    assert "widgets" not in executed.metadata
    bundles = [output.data for cell in executed.cells for output in cell.outputs]
    assert [bundle["text/plain"] for bundle in bundles] == ["<one>", "<two>", "<map>"]
    assert all(bundle[MIME]["config"]["showSendToCloud"] is False for bundle in bundles)
    assert [holds_library(bundle) for bundle in bundles] == [True, False, False]
    assert len(json.dumps(bundles)) < 2_500_000


@pytest.mark.browser
def test_an_html_export_shows_every_figure_without_a_network(
    executed: nbformat.NotebookNode, tmp_path: Path
) -> None:
    from playwright.sync_api import sync_playwright

    page = tmp_path / "export.html"
    page.write_text(HTMLExporter().from_notebook_node(executed)[0], encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        tab = browser.new_context(offline=True).new_page()
        tab.goto(page.as_uri(), wait_until="commit")
        tab.wait_for_function("() => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 6")
        titles = tab.locator(".js-plotly-plot .gtitle").all_text_contents()
        tab.locator(".js-plotly-plot[tabindex]").press("ArrowRight")
        tab.wait_for_function("() => document.activeElement.layout.sliders[0].active === 1")
        browser.close()
    assert [title.strip() for title in titles] == ["one", "two", "map"]


class Kernel:
    """A kernel that a front end has asked to run a cell."""

    def __init__(self, **content: Any) -> None:
        self.message = {"content": content, "metadata": {"cellId": "a"}, "header": {"msg_id": "1"}}

    def get_parent(self) -> dict[str, Any]:
        return self.message


def test_who_watches_is_asked_of_the_front_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_HEADLESS")
    assert not display.can_show_widgets()  # no kernel
    for allowed in (True, False):
        kernel = Kernel(allow_stdin=allowed)
        monkeypatch.setattr(display, "_kernel", lambda kernel=kernel: kernel)
        assert display.can_show_widgets() is allowed and is_unattended() is not allowed
    monkeypatch.setenv("WORKBENCH_HEADLESS", "1")
    monkeypatch.setattr(display, "_kernel", lambda: Kernel(allow_stdin=True))
    assert is_unattended()


def test_one_cell_holds_plotly_js_again_each_time_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_carrier", None)
    kernel = Kernel()
    monkeypatch.setattr(display, "_kernel", lambda: kernel)

    def run(cell: str | None, message: str) -> list[bool]:
        kernel.message |= {"metadata": {"cellId": cell}, "header": {"msg_id": message}}
        figure = line_figure({"a": ([1], [2])}, title="figure")
        return [holds_library(figure_bundle(figure)) for _ in range(2)]

    assert run("a", "1") == [True, False] and run("b", "2") == [False, False]
    assert run("a", "3") == [True, False]
    monkeypatch.setattr(display, "_carrier", None)
    assert run(None, "1") == [True, False] and run(None, "2") == [False, False]


def test_a_renderer_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plotly.io.renderers, "default", "json")
    line_figure({"a": ([1], [2])}, title="figure")
    assert plotly.io.renderers.default == "json"
    monkeypatch.setattr(plotly.io.renderers, "default", "plotly_mimetype")
    line_figure({"a": ([1], [2])}, title="figure")
    assert go.Figure()._repr_mimebundle_()[MIME]["config"] == CONFIG | {"responsive": False}


def test_nothing_of_this_needs_plotly_before_a_figure_is_shown() -> None:
    code = "import sys, workbench.training.launch; assert 'plotly' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
