import numpy as np
import pytest

import workbench
from tests.fake_runs import write_run
from workbench.reports.compare import compare
from workbench.reports.parallel_tables import groups_to_explore, runs_to_explore

RECALL, RANK = ("test", "text_to_image_r1"), ("test", "text_to_image_median_rank")


def run_of(folder, recipe="clip_kd_demo", seed=0, **overrides):
    path = write_run(folder, recipe, seed, splits={"test": 1.0 + seed}, overrides=overrides)
    return workbench.Run(path)


def test_a_row_for_every_run_with_what_differs_and_what_came_of_it(tmp_path):
    runs = [
        run_of(tmp_path / "a"),
        run_of(tmp_path / "b", seed=1, **{"objectives.fd": 2.0}),
        run_of(tmp_path / "c", **{"student.frozen": ["visual"], "student.cache_frozen": False}),
    ]
    table = runs_to_explore(runs, [RECALL, RANK, ("test_style", "swap_accuracy")])
    table = table.drop(columns="student.cache_frozen", errors="ignore")
    assert list(table)[:3] == ["seed", "objectives.fd", "student.frozen"]
    assert table["objectives.fd"].tolist() == [4.0, 2.0, 4.0] and table["seed"].tolist() == [0, 1, 0]
    assert table["student.frozen"].tolist() == [str(list(runs[0].recipe.student.frozen))] * 2 + ["['visual']"]
    scores = [compare([run]).table for run in runs]
    expected = [100 * item.loc[RECALL].iloc[0] for item in scores]
    np.testing.assert_allclose(table["test: text-to-image R@1"], expected)
    np.testing.assert_allclose(
        table["test: text-to-image median rank"], [item.loc[RANK].iloc[0] for item in scores]
    )
    assert table["test_style: swapped captions, accuracy"].isna().all()


def test_recipes_of_other_names_are_named(tmp_path):
    table = runs_to_explore([run_of(tmp_path / "a"), run_of(tmp_path / "b", "fd_demo")], [RECALL])
    assert table["name"].tolist() == ["clip_kd_demo", "fd_demo"]
    assert table["objectives.crd"].tolist() == [1.0, 0.0]
    assert list(runs_to_explore([run_of(tmp_path / "a")], [RECALL])) == ["test: text-to-image R@1"]


def test_groups_of_comparisons_under_their_names(tmp_path):
    first = compare([run_of(tmp_path / "a", "task_only_demo"), run_of(tmp_path / "b")]).table
    second = compare([run_of(tmp_path / "c", "task_only_demo", 1)]).table
    table = groups_to_explore({"one": first, "two": second, "without": first.drop(index=[RECALL])}, [RECALL])
    assert table["ablation"].tolist() == ["one", "one", "two"]
    assert table["recipe"].tolist() == ["task_only_demo (one)", "clip_kd_demo", "task_only_demo (two)"]
    assert table["test: text-to-image R@1"].tolist() == pytest.approx(
        [100 * first.loc[RECALL, (name, "value")] for name in ("task_only_demo", "clip_kd_demo")]
        + [100 * second.loc[RECALL, ("task_only_demo", "value")]]
    )
    assert groups_to_explore({"without": first}, [("other", "x")]).empty
