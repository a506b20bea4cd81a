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


def test_runs_of_other_suites_share_what_both_measured(tmp_path):
    first = write_run(tmp_path / "a", "task_only_demo", splits={"test": 0.0})
    second = write_run(tmp_path / "b", splits={"test": 0.5})
    report = json.loads((second / "evaluation/test.json").read_text())
    report["scores"] = {name: value for name, value in report["scores"].items() if "_to_" in name}
    (second / "evaluation/test.json").write_text(json.dumps(report))
    with np.load(second / "evaluation/test.npz") as parts:
        kept = {name: parts[name] for name in ("image_of_text", "t2i_ranks", "i2t_ranks")}
    np.savez(second / "evaluation/test.npz", **kept)
    comparison = compare([first, second])
    assert comparison.table.loc[("test", "text_to_image_r1")]["clip_kd_demo", "verdict"] != ""
    assert ("test", "swap_accuracy") not in comparison.table.index
    assert "swapped captions, accuracy" in comparison.note
    (second / "evaluation/test.npz").unlink()  # no results of single queries: no interval, and no refusal
    assert compare([first, second]).table.loc[("test", "text_to_image_r1")]["clip_kd_demo", "verdict"] == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("test.json", text) for text in (b"{", b"[]", b"null", b"\xff", b'{"data": "d", "scores": {}}')),
        ("test.json", b'{"data": "d", "images": 1, "captions": 1, "scores": {"text_to_image_r1": "much"}}'),
        *(("test.npz", content) for content in (b"", b"PK\x03\x04 cut", b"no archive")),
    ],
)
def test_a_damaged_file_is_named(name, content, tmp_path):
    run = write_run(tmp_path / "a", splits={"test": 0.0})
    (run / "evaluation" / name).write_bytes(content)
    with pytest.raises(SettingError, match=rf"{name}.*damaged .*workbench evaluate"):
        compare([run])


def test_a_recipe_that_cannot_be_used_is_named(tmp_path):
    run = write_run(tmp_path / "a", splits={"test": 0.0})
    with open(run / "recipe.yaml", "a") as stream:
        stream.write("training.lrr: 3\n")
    with pytest.raises(SettingError, match=r"training.lrr.*in .*a/recipe.yaml"):
        compare([run])
