"""What the run browser answers; that a browser shows and clicks is tested in JupyterLab
(test_run_browser_in_browser.py)."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fake_runs import write_run
from workbench.errors import SettingError
from workbench.widgets import RunBrowser

PLOTLY = "application/vnd.plotly.v1+json"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_run(tmp_path / "a", steps=20, splits={"test": 0.5})
    write_run(tmp_path / "b", "task_only_demo", steps=30, splits={"test": 1.5})
    write_run(tmp_path / "c", steps=10, state="interrupted", overrides={"training.lr": 0.003})
    write_run(tmp_path / "d", steps=5)
    (tmp_path / "d/recipe.yaml").write_text("name: [")
    return tmp_path


def names(browser: RunBrowser) -> str:
    return "".join(row.folder for row in browser.shown)


def test_newest_first_then_as_asked(runs: Path) -> None:
    browser = RunBrowser(runs)
    assert names(browser) == "dcba"
    browser.choose(sort="name")
    assert names(browser) == "acdb"
    browser.choose(sort="name")
    assert names(browser) == "bdac"
    recall = ("test", "text_to_image_r1")
    browser.choose(sort=recall)
    assert names(browser)[:2] == "ba"
    browser.choose(filter="clip_kd")
    assert names(browser) == "ac"
    assert "2 of 4 runs" in browser._bundle()["text/html"]


def test_picked_runs_have_curves_and_differences(runs: Path) -> None:
    browser = RunBrowser(runs)
    assert browser.figure is None and browser.differences == {} and browser.picked == []
    browser.choose(picked=[runs / "a"])
    assert browser.figure.layout.title.text == "clip_kd_demo, seed 0" and browser.differences == {}
    browser.choose(picked=[str(runs / "a"), runs / "c", runs / "d", runs / "nowhere", runs / "a"])
    assert [run.path.name for run in browser.picked] == ["a", "c"]
    assert browser.differences == {"training.lr": [browser.picked[0].recipe.training.lr, 0.003]}
    labels = ["clip_kd_demo, seed 0 (a)", "clip_kd_demo, seed 0 (c)"]
    loss = [trace for trace in browser.figure.data if trace.xaxis == "x"]
    assert [trace.name for trace in loss] == labels
    assert [max(trace.x) for trace in loss] == [20, 10]
    # The table and the settings name the curves by their colours.
    html = browser._bundle()["text/html"]
    assert all(html.count(f"background:{trace.line.color}") == 2 for trace in loss)


def test_a_damaged_file_of_records_is_read_as_far_as_it_goes(runs: Path) -> None:
    with open(runs / "a/metrics.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"kind": "step", "step": "x"}\n')
    (runs / "b/metrics.jsonl").unlink()
    browser = RunBrowser(runs)
    browser.choose(picked=[runs / "b", runs / "a"])
    assert max(browser.figure.data[1].x) == 20
    browser.choose(picked=[runs / "b"])
    assert "no step recorded yet" in browser.figure.to_json()


def test_headless_it_is_a_plain_table(runs: Path, shown: list[dict[str, Any]]) -> None:
    RunBrowser(runs)._ipython_display_()  # WORKBENCH_HEADLESS=1 in tests
    (bundle,) = shown
    assert set(bundle) == {"text/html", "text/plain"} and bundle["text/plain"] == "<4 of 4 runs>"
    assert bundle["text/html"].count("<tr") == 5 and "<button" not in bundle["text/html"]


def test_headless_what_is_picked_is_shown(runs: Path, shown: list[dict[str, Any]]) -> None:
    browser = RunBrowser(runs)
    browser.choose(picked=[runs / "a", runs / "b"])
    browser._ipython_display_()
    assert "Settings that differ" in shown[0]["text/html"] and "objectives.crd" in shown[0]["text/html"]
    assert shown[1][PLOTLY]["layout"]["title"]["text"] == "2 runs"


def test_no_runs_and_no_folder(tmp_path: Path) -> None:
    browser = RunBrowser(tmp_path)
    assert browser.shown == [] and "0 of 0 runs" in browser._bundle()["text/html"]
    with pytest.raises(SettingError, match="no such folder"):
        RunBrowser(tmp_path / "nowhere")


def test_the_widget_answers_what_a_browser_sends(runs: Path) -> None:
    browser = RunBrowser(runs, live=True)
    changed: list[Any] = []
    view = browser._widget(lambda table, figure: changed.append(figure))

    def state() -> dict[str, Any]:
        return json.loads(view.shown)

    def send(**message: Any) -> None:
        view._handle_custom_msg(message, [])

    assert state()["table"].count("data-run") == 3 and state()["words"] == "4 of 4 runs"  # one is damaged
    assert view.figure == "" and state()["differences"] == ""

    send(filter="lr=0.003")
    assert state()["words"] == "1 of 4 runs" and state()["table"].count("data-run") == 1
    send(filter="training.lrr=1")
    assert state()["words"] == "0 of 4 runs; no run has a setting or score training.lrr"
    send(filter="")

    send(sort="test/text_to_image_r1")
    assert names(browser)[:2] == "ba" and 'aria-sort="descending"' in state()["table"]
    send(sort="test/text_to_image_r1")
    assert names(browser)[:2] == "ab" and 'aria-sort="ascending"' in state()["table"]

    send(pick=str(runs / "a"))
    assert json.loads(view.figure)["layout"]["title"]["text"] == "clip_kd_demo, seed 0"
    assert state()["table"].count(" checked") == 1
    send(pick=str(runs / "c"))
    assert "training.lr<" in state()["differences"] and state()["words"] == "4 of 4 runs, 2 selected"
    # The copy that stays is what is shown.
    assert json.loads(changed[-1].to_json()) == json.loads(view.figure)
    send(pick=str(runs / "a"))
    assert [run.path.name for run in browser.picked] == ["c"]

    write_run(runs / "e", steps=7)
    (runs / "c/recipe.yaml").unlink()
    send(read=True)
    assert state()["words"] == "5 of 5 runs" and view.figure == "" and browser.picked == []
    send(pick=str(runs / "e"))
    send(release=True)
    assert browser.picked == [] and view.figure == "" and changed[-1] is None


def test_a_column_that_there_is_not(runs: Path) -> None:
    browser = RunBrowser(runs)
    with pytest.raises(SettingError, match=r"sort = 'nonsense'.*name, folder"):
        browser.choose(sort="nonsense")
    assert browser.shown
