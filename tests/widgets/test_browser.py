"""In a real JupyterLab: curves move while a run trains, wherever it trains, and are there when the notebook
is opened again."""

import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from tests.browser import PLOTLY, Lab, Page, jupyter_lab

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
PATIENCE = 240  # seconds; a machine with nothing else to do needs a tenth


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with jupyter_lab(tmp_path_factory.mktemp("notebooks"), {"PYTHONPATH": str(ROOT)}) as running:
        yield running


def write_notebook(lab: Lab, name: str, *cells: str) -> str:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, lab.folder / name)
    return name


def wait_until_it_moved(page: Page, plot: int) -> None:
    """Until the curves of a plot have been seen to come further, and further again."""
    seen: list[float] = [0]

    def moved(page: Page) -> bool:
        reach = page.reach()
        if len(reach) > plot and reach[plot] > seen[-1]:
            seen.append(reach[plot])
        return len(seen) > 3

    page.wait_for(moved, PATIENCE, f"curves that grow in plot {plot}")


def kinds(page: Page) -> list[list[set[str]]]:
    return [[set(output.get("data", {})) for output in outputs] for outputs in page.outputs()]


@pytest.mark.slow
def test_monitor_moves_and_stays(lab: Lab, tmp_path: Path) -> None:
    runs = ("other_process", "this_kernel", "by_itself")
    name = write_notebook(
        lab,
        "monitor.ipynb",
        f"""
        import subprocess, sys, time
        from pathlib import Path
        from tests.fake_runs import train_for_show
        from workbench.widgets import TrainingMonitor

        runs = Path({str(tmp_path)!r})

        def start(name):
            subprocess.Popen([{sys.executable!r}, "-m", "tests.fake_runs", str(runs / name), "4000"])
            while not (runs / name / "status.json").is_file():
                time.sleep(0.1)
        """.replace("\n        ", "\n"),
        'start("other_process")\nTrainingMonitor(runs / "other_process").watch()',
        'with TrainingMonitor(runs / "this_kernel"):\n    train_for_show(runs / "this_kernel", 4000)',
        'start("by_itself")\nTrainingMonitor(runs / "by_itself")',
        'while not (runs / "by_itself" / "stop").exists():\n    sum(range(20_000))  # a kernel that is busy all the time',
        'TrainingMonitor(runs / "other_process")',
    )
    with lab.open(name) as page:
        page.start_all()
        for plot, run in enumerate(runs):
            wait_until_it_moved(page, plot)
            (tmp_path / run / "stop").touch()
        page.wait_idle(PATIENCE)
        page.wait_for(
            lambda page: PLOTLY in kinds(page)[3][0], PATIENCE, "a plain figure where the live one was"
        )
        page.wait_for(lambda page: page.figures() == 4, PATIENCE, "four figures")
        assert page.errors() == []
        assert [len(outputs) for outputs in kinds(page)] == [0, 3, 3, 3, 0, 1]
        steps = [len((tmp_path / run / "metrics.jsonl").read_bytes().splitlines()) for run in runs]
        reach = page.reach()
        assert reach[3] == reach[0]
        # Besides its steps a run has written some validations, at most one in ten.
        assert all(0.9 * count <= last <= count for last, count in zip(reach, steps, strict=False))
        page.save()
        saved = page.saved()
        assert "widgets" not in saved["metadata"]
        page.reopen()
        page.wake()
        page.wait_for(lambda page: page.reach() == reach, PATIENCE, "the curves as they were saved")
        assert page.errors() == []


@pytest.mark.slow
def test_interrupt_stops_watching_and_not_the_run(lab: Lab, tmp_path: Path) -> None:
    run = tmp_path / "run"
    name = write_notebook(
        lab,
        "interrupt.ipynb",
        f"""import subprocess
from workbench.widgets import TrainingMonitor
process = subprocess.Popen([{sys.executable!r}, "-m", "tests.fake_runs", {str(run)!r}, "100000"], start_new_session=True)
while not __import__("os").path.exists({str(run / "status.json")!r}): pass""",
        f"TrainingMonitor({str(run)!r}).watch()",
    )
    with lab.open(name) as page:
        page.start_all()
        wait_until_it_moved(page, 0)
        page.interrupt()
        page.wait_idle(PATIENCE)
        page.wait_for(
            lambda page: len(page.outputs()[1]) == 5, PATIENCE, "figure, words and KeyboardInterrupt"
        )
        figure, _, _, words, error = page.outputs()[1]
        assert PLOTLY in figure["data"]
        assert "continues" in "".join(words["text"])
        assert error["ename"] == "KeyboardInterrupt"
        steps = len((run / "metrics.jsonl").read_bytes().splitlines())
        page.wait_for(
            lambda _: len((run / "metrics.jsonl").read_bytes().splitlines()) > steps, 30, "a run that goes on"
        )
        (run / "stop").touch()


@pytest.mark.slow
def test_a_page_loaded_again_while_a_run_trains_shows_it(lab: Lab, tmp_path: Path) -> None:
    run = tmp_path / "run"
    name = write_notebook(
        lab,
        "reload.ipynb",
        f"""import subprocess
from workbench.widgets import TrainingMonitor, live
live.COPY = 1.0
process = subprocess.Popen([{sys.executable!r}, "-m", "tests.fake_runs", {str(run)!r}, "100000"], start_new_session=True)
while not __import__("os").path.exists({str(run / "status.json")!r}): pass""",
        f"TrainingMonitor({str(run)!r}).watch()",
    )

    def copied(page: Page) -> bool:
        """Whether the notebook holds a figure of the run with curves."""
        page.save()
        outputs = page.saved()["cells"][1]["outputs"]
        return len(outputs) == 3 and "Loss and weighted terms" in str(outputs[2]["data"].get(PLOTLY))

    with lab.open(name) as page:
        page.start_all()
        wait_until_it_moved(page, 0)
        assert page.tab.locator(".jp-OutputArea-child:visible").count() == 1  # the copy is hidden
        page.wait_for(copied, PATIENCE, "a saved figure of a run that goes on")
        page.tab.on("dialog", lambda dialog: dialog.accept())
        page._load()
        page.wait_for(lambda page: page.figures() == 1, PATIENCE, "the figure as it was saved")
        seen = " ".join(page.tab.locator(".jp-OutputArea-child:visible").all_inner_texts())
        assert "widget" not in seen and "model" not in seen and "Run this cell to follow the run" in seen
        page.screenshot(tmp_path / "reloaded.png")
        (run / "stop").touch()


def test_search_answers_words(lab: Lab, tmp_path: Path) -> None:
    name = write_notebook(
        lab,
        "search.ipynb",
        """
import numpy as np
from workbench.widgets import PictureSearch

class Colours:
    names = ["red", "green", "blue"]
    def image(self, row):
        picture = np.zeros((3, 32, 32), np.uint8)
        picture[row] = 255
        return picture
    def captions(self, row):
        return [f"all {self.names[row]} <script>alert(1)</script>"]

def words(text, best):
    return sorted([(row, float(name in text)) for row, name in enumerate(Colours.names)], key=lambda hit: -hit[1])

PictureSearch(Colours(), words, lambda data, best: [(2, 1.0)], query="green")""",
    )
    with lab.open(name) as page:
        page.run_all(PATIENCE)
        first = page.tab.locator(".jp-OutputArea-output img").first
        page.wait_for(
            lambda page: page.tab.locator(".jp-OutputArea-output img").count() == 3,
            PATIENCE,
            "three pictures",
        )
        before = first.get_attribute("src")
        box = page.tab.locator(".widget-text input")
        box.fill("something blue")
        box.press("Enter")
        page.wait_for(lambda _: first.get_attribute("src") != before, PATIENCE, "another best picture")
        assert "all blue <script>" in page.tab.locator(".jp-OutputArea-output").last.inner_text()
        page.save()
        page.reopen()
        page.wait_for(
            lambda page: page.tab.locator(".jp-OutputArea-output img").count() == 3,
            PATIENCE,
            "the first answer",
        )
        assert page.errors() == []
