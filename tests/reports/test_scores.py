"""The scores of a run beside its teacher's and chance."""

from pathlib import Path

import numpy as np
import pytest

import workbench
from tests.fake_runs import write_run
from workbench.files import write_json
from workbench.reports import scores
from workbench.reports.scores import score_table


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> workbench.Run:
    monkeypatch.setattr(scores, "_classes", lambda *_: 25)
    return workbench.Run(write_run(tmp_path / "run", splits={"test": 0.5}))


def test_shares_are_in_per_cent_with_an_interval_and_chance(run: workbench.Run, tmp_path: Path) -> None:
    teacher = workbench.Run(write_run(tmp_path / "teacher", splits={"test": 1.5}))
    table = score_table(run, teacher).loc["test"]
    stored = run.evaluations["test"].report["scores"]
    row = table.loc["text-to-image R@1, %"]
    low, high = map(float, row["95 % interval"].split(" to "))
    assert row["student"] == f"{100 * stored['text_to_image_r1']:.1f}" and low < float(row["student"]) < high
    assert float(row["teacher"]) > float(row["student"])
    chances = table["chance"]
    assert chances["text-to-image R@10, %"] == f"{1000 / 60:.1f}"
    assert chances["zero-shot names top-1, %"] == "4.0" and chances["swapped captions, accuracy, %"] == "50.0"
    assert "teacher" not in score_table(run)


def test_chance_of_finding_one_of_several_captions_is_that_of_drawing_them(run: workbench.Run) -> None:
    random = np.random.default_rng(0)
    ranks = np.array([random.permutation(300)[:5].min() for _ in range(20_000)])  # of the first of five
    chances = score_table(run).loc["test", "chance"]
    for best in (1, 5, 10):
        assert float(chances[f"image-to-text R@{best}, %"]) == pytest.approx(
            100 * (ranks < best).mean(), abs=0.7
        )
    assert float(chances["image-to-text MRR, %"]) == pytest.approx(100 * (1 / (1 + ranks)).mean(), abs=0.3)
    harmonic = sum(1 / rank for rank in range(1, 61))  # one picture of 60 is right
    assert chances["text-to-image MRR, %"] == f"{100 * harmonic / 60:.1f}"


def test_scores_without_results_of_queries_have_no_interval(run: workbench.Run) -> None:
    for file in (run.path / "evaluation").glob("*.npz"):
        file.unlink()
    report = {"data": "d", "images": 60, "captions": 300, "scores": {"median": 3.0}}
    write_json(run.path / "evaluation" / "test.json", report)
    (row,) = score_table(run).to_dict("records")
    assert row == {"student": "3", "95 % interval": "", "chance": ""}
