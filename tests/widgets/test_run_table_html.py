"""The run table as HTML: what is shown, what can be pressed, and no markup that comes from a run."""

import time
from pathlib import Path

from tests.fake_runs import write_run, write_status
from workbench.recipe import Recipe
from workbench.runs.table import RunRow, find_runs, headline_scores
from workbench.widgets.run_table_html import age, differences_html, runs_html

RECALL = ("test", "text_to_image_r1")


def test_html_shows_what_is_known_and_no_markup_of_others(tmp_path: Path) -> None:
    write_status(write_run(tmp_path / "<b>", steps=1200), "failed", 1200, 5000, message="<script>")
    write_run(tmp_path / "x", steps=3, splits={"test": 0.5})
    rows = find_runs(tmp_path)
    html = runs_html(rows, headline_scores(rows), picked={rows[1].path: "#123456"})
    assert "1,200 / 5,000" in html and f">{100 * rows[1].scores[RECALL]:.1f}<" in html
    assert "test, %</span>text-to-image R@1<" in html and html.count("#123456") == 1
    assert "<b>" not in html and "<script" not in html and "&lt;script&gt;" in html
    assert "<button" not in html and "<input" not in html
    assert f">{time.strftime('%Y-%m-%d %H:', time.localtime(rows[0].updated))}" in html and " ago" not in html
    html = runs_html(rows, [], answers=True)
    assert html.count("<input") == 2 and html.count(" ago<") == 2
    assert "&lt;x&gt;" in differences_html(
        {"data.source": ["<x>", None]}, ["one", "two"], ["#111111", "#222222"]
    )


def test_a_teachers_run_says_so(tmp_path: Path) -> None:
    Recipe.load("dclip_teacher_demo").save(tmp_path / "teacher/recipe.yaml")
    assert "trains the cross-modal teacher" in runs_html(find_runs(tmp_path), [])


def test_what_is_damaged_cannot_be_picked_and_says_why(tmp_path: Path) -> None:
    write_run(tmp_path / "good", steps=1)
    damaged = RunRow(tmp_path, "bad", "bad", "damaged", "x" * 500, updated=1e200)
    for answers in (True, False):
        html = runs_html([damaged, *find_runs(tmp_path)], [], answers=answers)
        assert html.count("<tr") == 3 and html.count("data-run") == html.count("<input") == answers
        assert f"{'x' * 159}…" in html and f'title="{"x" * 500}"' in html
    assert "<td" in runs_html([], [])


def test_settings_are_bold_where_they_differ_from_the_first() -> None:
    result = {"seed": [0, 0, 4], "teacher.model": [None, "x", None]}
    html = differences_html(result, ["a", "b", "c"], ["#111111", "#222222", "#333333"])
    cells = [cell.split("</td>")[0] for cell in html.split("<td")[1:]]
    assert [cell.rpartition(">")[2] for cell in cells] == [
        "seed", "0", "0", "4", "teacher.model", "null", "x", "null",
    ]  # fmt: skip
    assert ["font-weight:600" in cell for cell in cells] == [
        False,
        False,
        False,
        True,
        False,
        False,
        True,
        False,
    ]
    assert "no setting" in differences_html({}, ["a", "b"], ["#111111", "#222222"])


def test_ages() -> None:
    assert [age(seconds) for seconds in (-3.0, 5.0, 119.0, 120.0, 7199.0, 7200.0, 172_800.0)] == [
        "0 s", "5 s", "119 s", "2 min", "120 min", "2 h", "2 d",
    ]  # fmt: skip
