"""The run browser in JupyterLab: type a filter, sort, pick two runs, see their curves and settings; the saved
notebook shows them without a kernel."""

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from tests.browser import Page, jupyter_lab
from tests.fake_runs import write_run, write_status
from workbench.recipe import Recipe

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PATIENCE = 240  # seconds; a machine with nothing else to do needs a tenth
VIEW = ".workbench-runs"
PLOT = f"{VIEW} .js-plotly-plot"
NOTEBOOK = """
import workbench
workbench.widgets.RunBrowser("runs")
"""


def write_runs(folder: Path) -> None:
    for seed in range(3):
        write_run(folder / f"kd{seed}", seed=seed, steps=150, splits={"test": 0.4 + 0.1 * seed})
        write_run(folder / f"task{seed}", "task_only_demo", seed, steps=150, splits={"test": 0.1 * seed})
    for lr in (0.0005, 0.003):
        name = f"sweep/clip_kd_demo-training.lr={lr}-seed0/run"
        write_run(folder / name, steps=150, overrides={"training.lr": lr}, splits={"test": 0.2})
        (folder / name).with_name("manifest.json").write_text("{}")
    write_status(write_run(folder / "full", steps=60), "failed", 60, 150, message="no space left on device")
    write_run(folder / "torn", steps=5)
    (folder / "torn/recipe.yaml").write_text("name: [")
    Recipe.load("dclip_teacher_demo").save(folder / "teacher/recipe.yaml")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    write_runs(tmp_path / "runs")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK.strip())])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "runs.ipynb")
    with (
        jupyter_lab(tmp_path, {"PYTHONPATH": str(ROOT)}) as lab,
        lab.open("runs.ipynb") as opened,
    ):
        opened.run_all(PATIENCE)
        opened.tab.wait_for_selector(f"{VIEW} tbody tr", timeout=PATIENCE * 1000)
        assert opened.errors() == []
        yield opened


def words(page: Page) -> str:
    return str(page.tab.locator(f"{VIEW} .words").inner_text())


def column(page: Page, number: int) -> list[str]:
    return page.tab.locator(f"{VIEW} tbody tr td:nth-child({number})").all_inner_texts()


def curves(page: Page) -> dict[str, str]:
    """Name and colour of each curve in the first panel."""
    return page.tab.evaluate(
        f"""() => Object.fromEntries((document.querySelector('{PLOT}')?._fullData ?? [])
            .filter(each => each.xaxis === 'x').map(each => [each.name, each.line?.color]))"""
    )


def brightness(page: Page) -> list[float]:
    """The strongest of red, green and blue of every text in the table and the settings, in [0, 1]."""
    return page.tab.evaluate(
        f"""() => [...document.querySelectorAll('{VIEW} :is(th, td, td *, button)')].map(each => {{
            const colour = getComputedStyle(each).color;
            const numbers = colour.match(/[0-9.]+/g).slice(0, 3).map(Number);
            return Math.max(...numbers) / (colour.startsWith('rgb') ? 255 : 1);
        }})"""
    )


def test_filter_sort_pick_and_look(page: Page, tmp_path: Path) -> None:
    tab = page.tab
    assert words(page) == "11 of 11 runs"
    page.screenshot(tmp_path / "first.png")

    tab.locator(f"{VIEW} input[type=search]").press_sequentially("training.lr=0.003", delay=20)
    page.wait_for(lambda page: words(page) == "1 of 11 runs", PATIENCE, "the filter by a setting")
    tab.locator(f"{VIEW} tbody input").click()
    page.wait_for(lambda page: len(curves(page)) > 1, PATIENCE, "the loss terms of one run")

    tab.locator(f"{VIEW} input[type=search]").fill("finished")
    page.wait_for(lambda page: words(page) == "8 of 11 runs, 1 selected", PATIENCE, "another filter")
    tab.locator(f"{VIEW} [data-sort='test/text_to_image_r1']").click()
    page.wait_for(
        lambda page: column(page, 6) == sorted(column(page, 6), key=float, reverse=True),
        PATIENCE,
        "best first",
    )
    assert len(set(column(page, 6))) > 4
    tab.locator(f"{VIEW} [data-sort='test/text_to_image_r1']").click()
    page.wait_for(lambda page: column(page, 6) == sorted(column(page, 6), key=float), PATIENCE, "worst first")
    # The heading pressed is still where the keyboard is.
    assert tab.evaluate("document.activeElement.dataset.sort") == "test/text_to_image_r1"
    tab.locator(f"{VIEW} [data-sort='seed']").click()
    page.wait_for(lambda page: column(page, 3)[0] == "0", PATIENCE, "by seed")

    # A row is picked wherever it is pressed.
    tab.locator(f"{VIEW} tbody tr", has_text="kd2").locator("td").nth(3).click()
    names = {"clip_kd_demo, seed 0", "clip_kd_demo, seed 2"}
    page.wait_for(lambda page: set(curves(page)) == names, PATIENCE, "the curves of two runs")
    assert tab.locator(".js-plotly-plot:visible").count() == 1
    settings = tab.locator(f"{VIEW} .differences tbody tr td:first-child").all_inner_texts()
    assert sorted(settings) == ["seed", "training.lr"]
    chips = tab.evaluate(
        f"[...document.querySelectorAll('{VIEW} .differences th span')].map(each => each.style.background)"
    )
    assert len(set(chips)) == 2
    page.screenshot(tmp_path / "picked.png")
    assert not tab.evaluate(
        f"(place => place.scrollWidth > place.clientWidth)(document.querySelector('{VIEW} .table'))"
    )

    tab.evaluate("window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
    tab.wait_for_function("() => document.body.dataset.jpThemeLight === 'false'")
    page.wait_for(lambda page: min(brightness(page)) > 0.55, PATIENCE, "text that can be read on black")
    assert "invert" in tab.evaluate(f"getComputedStyle(document.querySelector('{PLOT}')).filter")
    page.screenshot(tmp_path / "dark.png")

    page.save()
    page.reopen()
    page.wake()
    tab.wait_for_selector(".js-plotly-plot .main-svg")
    kept = tab.locator(".jp-RenderedHTML:visible").last  # before it the note
    assert "8 of 11 runs, 2 selected" in kept.inner_text() and "training.lr" in kept.inner_text()
    page.screenshot(tmp_path / "reopened.png")


def test_release_and_read_again(page: Page, tmp_path: Path) -> None:
    tab = page.tab
    tab.locator(f"{VIEW} tbody tr", has_text="kd2").click()
    page.wait_for(lambda page: len(curves(page)) > 1, PATIENCE, "the loss terms of one run")
    tab.get_by_role("button", name="clear selection").click()
    page.wait_for(
        lambda page: page.tab.locator(".js-plotly-plot:visible").count() == 0, PATIENCE, "no figure"
    )
    write_run(tmp_path / "runs/new", steps=3)
    tab.get_by_role("button", name="read again").click()
    page.wait_for(lambda page: words(page) == "12 of 12 runs", PATIENCE, "the new run")
    assert page.errors() == []
