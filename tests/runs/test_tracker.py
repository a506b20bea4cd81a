"""Trackers get what the run folder gets, and stop no training."""

import json
import os
from pathlib import Path

import pytest

import workbench
from workbench.errors import SettingError
from workbench.runs import tracker
from workbench.runs.logger import RunLogger


def test_a_missing_package_is_named_before_anything_is_done(recipe, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tracker, "find_spec", lambda name: None)
    for name, extra in (("tensorboard", "track"), ("trackio", "trackio"), ("wandb", "wandb")):
        with pytest.raises(SettingError, match=rf"training\.track = .*{name}.*workbench\[{extra}\]"):
            workbench.train(recipe(training__track=name), tmp_path / name)
        assert not (tmp_path / name).exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_every_step(recipe, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = workbench.train(recipe(training__track="tensorboard", training__steps=3), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    shown = [(event.step, event.value) for event in events.Scalars("loss")]
    assert [step for step, _ in shown] == [1, 2, 3]
    assert [value for _, value in shown] == pytest.approx(run.metrics["loss"].tolist())
    assert "validation/text_to_image_r1" in events.Tags()["scalars"]


@pytest.mark.filterwarnings("ignore")
def test_wandb_stays_offline(recipe, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = workbench.train(recipe(training__track="wandb", training__steps=3), tmp_path / "run")
    assert run.finished
    assert [path.name[:12] for path in (tmp_path / "run" / "wandb").glob("offline-run-*")] == ["offline-run-"]


@pytest.mark.filterwarnings("ignore")
def test_trackio_keeps_a_run_on_this_machine(recipe, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("trackio")
    run = workbench.train(recipe(training__track="trackio", training__steps=3), tmp_path / "run")
    assert run.finished and os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


def test_a_tracker_that_fails_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(tracker.Tracker):
        def __init__(self) -> None:
            pass

        def record(self, *_: object) -> None:
            raise ConnectionError("nobody listens")

        def close(self) -> None:
            raise AssertionError("it was given up")

    logger = RunLogger(tmp_path, 2, tracker=Broken())
    logger.start(0)
    for step in (1, 2):
        logger.record("step", step, loss=1.0, scale=1.0)
    logger.close()
    assert "nobody listens" in capsys.readouterr().out
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
