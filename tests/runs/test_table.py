"""Rows of the run table: whole runs, sweeps, damage; order, and the settings that differ."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fake_runs import write_run, write_status
from workbench.errors import SettingError
from workbench.files import write_json
from workbench.recipe import Recipe
from workbench.runs.filter import matching
from workbench.runs.table import (
    find_runs,
    headline_scores,
    labels,
    setting_differences,
    sorted_rows,
)

RECALL = ("test", "text_to_image_r1")


def names(rows: Any) -> list[str]:
    return [row.folder for row in rows]


def test_a_run_as_its_files_say(runs: Path) -> None:
    row = find_runs(runs)[0]
    assert (row.path, row.folder, row.name, row.seed) == (runs / "a", "a", "clip_kd_demo", 1)
    assert (row.state, row.step, row.total, row.reason) == ("finished", 20, 20, "")
    written = json.loads((runs / "a/evaluation/test.json").read_text())["scores"]
    assert {metric: value for (split, metric), value in row.scores.items() if split == "test"} == written
    assert row.updated == json.loads((runs / "a/status.json").read_text())["updated"]
    assert row.recipe == Recipe.load("clip_kd_demo", {"seed": 1})
    assert row.settings["training.lr"] == row.recipe.training.lr


def test_two_levels_deep_and_the_run_folders_of_sweeps(tmp_path: Path) -> None:
    for place in ("one", "group/two", "sweeps/grid/lr=1-seed0/run", "a/b/too_deep", ".hidden", "one/inside"):
        write_run(tmp_path / place, steps=1)
    write_json(
        tmp_path / "sweeps/grid/lr=1-seed0/manifest.json",
        {"parameters": {}, "state": "finished", "error": None},
    )
    # A sweep is two levels below; of a folder of sweeps, each run is one more, which does not count.
    assert names(find_runs(tmp_path)) == ["group/two", "one"]
    assert names(find_runs(tmp_path / "sweeps")) == ["grid/lr=1-seed0"]
    assert names(find_runs(tmp_path / "sweeps/grid")) == ["lr=1-seed0"]
    assert names(find_runs(tmp_path / "one")) == ["one"]


@pytest.mark.parametrize(
    ("state", "error", "expected"),
    [
        ("failed", {"message": "cell 3: out of luck"}, ("failed", "cell 3: out of luck")),
        ("running", None, ("not trained", "its notebook is running")),
    ],
)
def test_a_run_of_a_sweep_that_never_began(
    tmp_path: Path, state: str, error: Any, expected: tuple[str, str]
) -> None:
    manifest = {"parameters": {"run_dir": "x"}, "state": state, "error": error}
    write_json(tmp_path / "lr=1-seed0/manifest.json", manifest)
    # An executed notebook that had no run to make is none.
    write_json(
        tmp_path / "06/manifest.json", {"parameters": {"run_dir": None}, "state": "failed", "error": error}
    )
    (row,) = find_runs(tmp_path)
    assert (row.state, row.reason) == expected and row.folder == "lr=1-seed0" and row.recipe is None


DAMAGE: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "no YAML": (lambda run: (run / "recipe.yaml").write_text("name: [x"), "damaged", "not a YAML file"),
    "empty recipe": (lambda run: (run / "recipe.yaml").write_text(""), "damaged", "recipe.yaml:"),
    "other version": (
        lambda run: (run / "recipe.yaml").write_text("name: x\nolder: 1\n"),
        "damaged",
        "older",
    ),
    "binary": (lambda run: (run / "recipe.yaml").write_bytes(b"\xff\xfe\x00"), "damaged", "recipe.yaml:"),
    "no recipe": (lambda run: (run / "recipe.yaml").unlink(), "damaged", "no recipe.yaml"),
    "half a status": (
        lambda run: (run / "status.json").write_text('{"state": "fin'),
        "damaged",
        "status.json",
    ),
    "no object": (lambda run: (run / "status.json").write_text("[1]"), "damaged", "holds no object"),
    "half a report": (
        lambda run: (run / "evaluation/test.json").write_text("{"),
        "finished",
        "evaluation/test.json cannot be read",
    ),
    "odd scores": (
        lambda run: (run / "evaluation/test.json").write_text(
            '{"scores": {"text_to_image_r1": NaN, "x": "y"}}'
        ),
        "finished",
        "",
    ),
    "odd numbers": (
        lambda run: write_json(run / "status.json", {"state": "finished", "step": "3", "updated": 1e200}),
        "finished",
        "",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_told_and_hides_no_other_run(tmp_path: Path, kind: str) -> None:
    damage, state, reason = DAMAGE[kind]
    write_run(tmp_path / "bad", steps=3, splits={"test": 0.0})
    write_run(tmp_path / "good", steps=3, splits={"test": 0.0})
    damage(tmp_path / "bad")
    bad, good = find_runs(tmp_path)
    assert bad.state == state and reason in bad.reason and (reason or not bad.reason)
    assert (good.state, good.reason) == ("finished", "") and RECALL in good.scores


def test_not_trained_failed_and_gone(tmp_path: Path) -> None:
    (write_run(tmp_path / "fresh", steps=0) / "status.json").unlink()
    write_status(write_run(tmp_path / "failed", steps=2), "failed", 2, 5, message="no space left")
    old = {"updated": time.time() - 60}
    write_status(write_run(tmp_path / "gone", steps=2), "running", 2, 5, **old)
    write_status(write_run(tmp_path / "remote", steps=2), "running", 2, 5, host="elsewhere", **old)
    write_status(write_run(tmp_path / "running", steps=2), "running", 2, 5)
    result = {row.folder: (row.state, row.reason) for row in find_runs(tmp_path)}
    assert result == {
        "fresh": ("not trained", ""),
        "failed": ("failed", "no space left"),
        "gone": ("gone", ""),
        "remote": ("running", ""),
        "running": ("running", ""),
    }


def test_runs_given_one_by_one(runs: Path, tmp_path: Path) -> None:
    given = [str(runs / "b"), runs / "a", SimpleNamespace(path=runs / "b"), runs / "nowhere"]
    rows = find_runs(given)
    assert [row.name for row in rows] == ["task_only_demo", "clip_kd_demo", "nowhere"]
    assert rows[2].state == "damaged"
    assert names(find_runs(SimpleNamespace(path=runs / "a"))) == ["a"] and find_runs([]) == []
    with pytest.raises(SettingError, match="no such folder"):
        find_runs(tmp_path / "nowhere")


def test_a_teachers_run_is_told_apart(tmp_path: Path) -> None:
    Recipe.load("dclip_teacher_demo").save(tmp_path / "teacher/recipe.yaml")
    (row,) = find_runs(tmp_path)
    assert row.recipe is not None and row.recipe.trains == "cross_modal_teacher"
    assert matching([row], "trains=cross_modal_teacher") == [row]


def test_order_with_unknown_values_last(runs: Path) -> None:
    rows = find_runs(runs)
    assert names(sorted_rows(rows, RECALL)) == ["a", "b", "c"]
    assert names(sorted_rows(rows, RECALL, descending=True)) == ["b", "a", "c"]
    assert names(sorted_rows(rows, "step")) == ["c", "a", "b"]
    assert names(sorted_rows(rows, "name", descending=True)) == ["b", "a", "c"]


def test_headlines_are_few_and_of_the_test_split_first(runs: Path) -> None:
    assert headline_scores(find_runs(runs)) == [
        RECALL,
        ("test", "image_to_text_r1"),
        ("test", "zero_shot_names_top1"),
        ("test", "zero_shot_categories_top1"),
    ]
    assert headline_scores([]) == []


def test_a_run_evaluated_elsewhere_shows_a_score_too(runs: Path) -> None:
    write_run(runs / "d", splits={"val": 0.5})
    scores = headline_scores(find_runs(runs))
    assert scores[0] == RECALL and scores[4:] == [("val", "text_to_image_r1")]


def test_settings_that_differ_over_all() -> None:
    changes: list[dict[str, Any]] = [{}, {"seed": 4}, {"training.lr": 0.5}, {"seed": 4, "training.batch": 8}]
    recipes = [Recipe.load("clip_kd_demo", change) for change in changes]
    lr, batch = recipes[0].training.lr, recipes[0].training.batch
    assert setting_differences(recipes) == {
        "seed": [0, 4, 0, 4],
        "training.lr": [lr, lr, 0.5, lr],
        "training.batch": [batch, batch, batch, 8],
    }
    # As a recipe has them, whichever run differs first.
    assert list(setting_differences([recipes[0], recipes[2], recipes[1]])) == ["seed", "training.lr"]
    assert setting_differences(recipes[:1]) == {} and setting_differences([]) == {}


def test_labels_tell_apart(runs: Path) -> None:
    write_run(runs / "d", seed=1)
    assert labels(find_runs(runs)) == [
        "clip_kd_demo, seed 1 (a)",
        "task_only_demo, seed 0",
        "clip_kd_demo, seed 0",
        "clip_kd_demo, seed 1 (d)",
    ]
