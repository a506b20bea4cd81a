"""Starts and the way back: evaluated like the run, once, and points that rest on the start."""

from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import workbench
from tests.fake_runs import write_run
from workbench.reports import wise_ft
from workbench.reports.compare import compare


@pytest.fixture
def models(monkeypatch):
    """Models as numbers: the start is 0, a run's end 1; evaluation writes what it was given."""
    seen = []
    monkeypatch.setattr(wise_ft, "start_model", lambda run: torch.tensor(0.0))
    monkeypatch.setattr(workbench.Run, "model", lambda self: torch.tensor(1.0))
    monkeypatch.setattr(wise_ft, "interpolate", lambda a, b, alpha: torch.lerp(a, b, alpha))

    def evaluate(model, recipe, folder, say):
        seen.append((float(model), recipe.name))
        write_run(folder.parent / "scratch", splits={"test": float(model)})
        (folder.parent / "scratch" / "evaluation").rename(folder)

    monkeypatch.setattr(wise_ft, "evaluate", evaluate)
    return seen


def run_of(folder, recipe="fine_tuning_demo", **overrides):
    return workbench.Run(write_run(folder, recipe, splits={"test": 1.0}, overrides=overrides))


def test_runs_of_one_start_share_it_and_it_is_measured_once(tmp_path, models):
    runs = [
        run_of(tmp_path / "a"),
        run_of(tmp_path / "b", seed=1),
        run_of(tmp_path / "c", "dclip_no_teacher_demo"),
        run_of(tmp_path / "d", **{"data.image_size": 48}),
    ]
    result = [wise_ft.evaluated_start(run, tmp_path / "made") for run in runs]
    assert len({run.path for run in result[:3]}) == 1 and result[3].path != result[0].path
    assert models == [(0.0, "start")] * 2
    assert result[0].recipe.name == "start" and wise_ft.has_start(runs[0])
    assert not wise_ft.has_start(run_of(tmp_path / "e", "task_only_demo"))


def test_a_teacher_without_both_sides_is_not_evaluated(tmp_path, models):
    assert wise_ft.evaluated_teacher(run_of(tmp_path / "alone", "task_only_demo"), tmp_path) is None
    assert models == []


def test_a_teacher_is_measured_once(tmp_path, models, monkeypatch):
    class Tower(wise_ft.DualEncoder):
        def __init__(self):
            torch.nn.Module.__init__(self)

        def __float__(self):
            return 2.0

    teacher = SimpleNamespace(model=Tower(), sides=("image", "text"))
    monkeypatch.setattr(wise_ft, "load_teacher", lambda recipe: teacher)
    runs = [run_of(tmp_path / "a", "clip_kd_demo"), run_of(tmp_path / "b", "clip_kd_demo", seed=1)]
    result = [wise_ft.evaluated_teacher(run, tmp_path / "made") for run in runs]
    assert result[0].path == result[1].path and models == [(2.0, "teacher")]
    teacher.sides = ("image",)
    assert wise_ft.evaluated_teacher(runs[0], tmp_path / "made") is None


def test_a_point_between_is_of_its_run_and_alpha(tmp_path, models):
    runs = [run_of(tmp_path / "a"), run_of(tmp_path / "b", seed=1)]
    result = [wise_ft.evaluated_between(run, 0.25, tmp_path / "made") for run in (*runs, *runs)]
    assert models == [(0.25, "WiSE-FT, 0.25 of fine_tuning_demo")] * 2
    assert len({run.path for run in result}) == 2
    start = wise_ft.evaluated_start(runs[0], tmp_path / "made")
    assert [len(group) for group in compare([start, *result[:2]]).groups.values()] == [1, 2]


def test_points_carry_the_interval_of_the_difference_to_the_start():
    rows = {
        ("names", "zero_shot_top1"): (0.8, 0.4, -0.4, -0.5, -0.3),
        ("test", "text_to_image_r1"): (0.2, 0.5, 0.3, 0.25, 0.375),
    }
    table = pd.DataFrame(
        {
            key: {
                ("start", "value"): start,
                ("tuned", "value"): value,
                ("tuned", "difference"): difference,
                ("tuned", "low"): low,
                ("tuned", "high"): high,
            }
            for key, (start, value, difference, low, high) in rows.items()
        }
    ).T
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    start, tuned = wise_ft.kept_points(table, *rows)
    assert start.method == "start" and start.zero_shot_kept == (1, 1, 1)
    assert start.recall == pytest.approx((0.2, 0.2, 0.2))
    assert tuned.zero_shot_kept == pytest.approx((0.5, 0.375, 0.625))
    assert tuned.recall == pytest.approx((0.5, 0.45, 0.575))
    between = table.rename(columns={"tuned": "WiSE-FT, 0.25 of tuned"})
    assert wise_ft.kept_points(between, *rows)[1] == tuned._replace(alpha=0.25)
