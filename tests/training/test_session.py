"""What is seen of a run before its first step, while targets are filled."""

from pathlib import Path

import pytest

from workbench.recipe import Recipe
from workbench.runs.folder import read_status
from workbench.runs.logger import before_first_step
from workbench.runs.run import Run
from workbench.training.session import Session
from workbench.widgets.training_monitor import TrainingMonitor, status_line

LINE = "teacher's image targets: 512 of 8000, 90 a second, 1.4 min left"


def test_filling_is_seen_by_who_reads_the_log_and_by_monitors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = Recipe.load("task_only_demo", {"training.device": "cpu"})
    with pytest.raises(OSError, match="disk"), Session(recipe, tmp_path) as session:
        session.share["say"](LINE)
        assert LINE in capsys.readouterr().out
        status = Run(tmp_path).status
        assert (status["state"], status["message"]) == ("running", LINE)
        assert TrainingMonitor(tmp_path).state == "running"
        assert "512 of 8000" in status_line("running", status)
        raise OSError("the disk is full")
    status = Run(tmp_path).status
    assert (status["state"], status["message"]) == ("failed", "OSError: the disk is full")


def test_what_a_run_had_reached_stays_in_its_status(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "interrupted", "step": 7, "total_steps": 9}')
    before_first_step(tmp_path, LINE)
    line = status_line("running", read_status(tmp_path))
    assert "step 7 of 9" in line and "512 of 8000" in line
    (tmp_path / "status.json").write_text("{damaged")
    before_first_step(tmp_path, LINE)
