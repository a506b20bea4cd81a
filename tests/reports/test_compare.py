"""Comparisons: seeds pooled, intervals paired by image, other data refused."""

import json

import numpy as np
import pytest

from tests.fake_runs import write_run
from workbench.errors import SettingError
from workbench.reports.compare import compare


@pytest.fixture
def runs(tmp_path):
    def of(recipe, shift):
        return [
            write_run(tmp_path / f"{recipe}{seed}", recipe, seed, splits={"test": shift}) for seed in range(3)
        ]

    return of("task_only_demo", 0.0) + of("clip_kd_demo", 1.5)


def test_values_are_means_over_seeds_and_differences_carry_intervals(runs):
    comparison = compare(runs)
    row = comparison.table.loc[("test", "text_to_image_r1")]
    scores = [
        json.loads((run / "evaluation/test.json").read_text())["scores"]["text_to_image_r1"] for run in runs
    ]
    assert row["task_only_demo", "value"] == pytest.approx(np.mean(scores[:3]))
    assert row["clip_kd_demo", "spread"] == pytest.approx(np.std(scores[3:], ddof=1))
    difference = np.mean(scores[3:]) - np.mean(scores[:3])
    assert row["clip_kd_demo", "difference"] == pytest.approx(difference)
    assert row["clip_kd_demo", "low"] <= difference <= row["clip_kd_demo", "high"]
    assert row["clip_kd_demo", "verdict"] == "higher" and row["clip_kd_demo", "seeds"] == 3
    assert "clip_kd_demo" in str(comparison) and "<table" in comparison._repr_html_()
    assert json.loads(comparison.to_json())["rows"]


def test_a_run_beside_itself_is_within_noise(tmp_path):
    first = write_run(tmp_path / "a", "task_only_demo", splits={"test": 0.0})
    second = write_run(tmp_path / "b", "clip_kd_demo", splits={"test": 0.0})
    for name in ("test.json", "test.npz"):
        (second / "evaluation" / name).write_bytes((first / "evaluation" / name).read_bytes())
    row = compare([first, second]).table.loc[("test", "text_to_image_r1")]
    assert row["clip_kd_demo", "difference"] == 0 and row["clip_kd_demo", "verdict"] == "within noise"


def test_other_data_and_runs_without_numbers_are_refused(tmp_path):
    first = write_run(tmp_path / "a", "task_only_demo", splits={"test": 0.0})
    with pytest.raises(SettingError, match="data"):
        compare([first, write_run(tmp_path / "b", splits={"test": 0.0}, data="e" * 64)])
    with pytest.raises(SettingError, match="evaluat"):
        compare([first, write_run(tmp_path / "c")])
