"""Zero-shot accuracy while a student trains, and the end of a run that forgets too much."""

import json

import pytest

import workbench
from workbench.errors import SettingError
from workbench.evaluation.zero_shot.sets import evaluate_set
from workbench.figures.training_panels import training_panels
from workbench.runs import checkpoint
from workbench.training import validation

SET = "scenes:val/names@32"
MEASURED = {"evaluation__during_training": [SET], "training__validate_every": 4}
COLUMN = "zero_shot_top1/scenes-val-names-32"


def test_zero_shot_accuracy_is_recorded_from_the_start_to_the_end(recipe, tmp_path):
    run = workbench.train(recipe(**MEASURED), tmp_path)
    table = run.validations
    assert list(table["step"]) == [0, 4, 8, 9] and table["text_to_image_r1"].notna().all()
    report, _ = evaluate_set(run.model(), run.recipe, SET)
    assert table[COLUMN].iloc[-1] == report["scores"]["zero_shot_top1"]
    (panel,) = [panel for panel in training_panels(run) if "zero-shot" in panel.title]
    assert panel.title == "Validation zero-shot top-1"
    assert [curve.name for curve in panel.curves] == ["scenes-val-names-32"]
    assert panel.curves[0].x.tolist() == [0, 4, 8, 9]
    both = [panel for panel in training_panels({"a": run, "b": run}) if panel.title.endswith("top-1")]
    assert [curve.name for curve in both[0].curves] == ["a", "b"]


def test_sets_are_bounded_as_validation_is_and_change_no_weight(recipe, tmp_path):
    settings = recipe(**MEASURED, training__validation_pairs=6)
    (labelled,) = validation.validation_sets(settings).values()
    assert len(labelled) == 6
    assert settings.fingerprint == recipe(training__validate_every=4).fingerprint
    runs = [workbench.train(made, tmp_path / str(seed)) for seed, made in enumerate((settings, recipe()))]
    measured, plain = (checkpoint.load_latest(run.path / "checkpoints").tensors for run in runs)
    assert all(measured[name].equal(plain[name]) for name in plain)


def test_a_run_that_forgets_too_much_ends_and_stays_ended(recipe, tmp_path, monkeypatch, capsys):
    accuracies = iter([0.6, 0.58, 0.5])
    monkeypatch.setattr(validation, "_top1", lambda *_: next(accuracies))
    settings = recipe(**MEASURED, training__max_forgotten=5.0)
    run = workbench.train(settings, tmp_path)
    reason = "zero-shot top-1 on scenes-val-names-32 fell from 60.0 to 50.0 %"
    assert run.status["state"] == "finished" and run.status["step"] == 8 and run.finished
    assert reason in run.status["message"] and reason in capsys.readouterr().out
    assert workbench.train(settings, tmp_path).status["step"] == 8
    (tmp_path / "status.json").write_text("{")  # what the checkpoint says holds
    again = workbench.train(settings, tmp_path)
    assert again.status["step"] == 8 and again.status["state"] == "finished"
    assert reason in again.status["message"] and list(again.metrics["step"]) == list(range(1, 9))


def test_what_a_run_forgot_is_measured_against_its_first_start(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "_top1", lambda *_: 0.6)
    settings = recipe(**MEASURED, training__max_forgotten=5.0)
    run = workbench.train(settings, tmp_path)
    (tmp_path / "checkpoints" / "LAST").write_text("step-00000008\n")
    (tmp_path / "status.json").write_text(json.dumps(run.status | {"state": "interrupted"}))
    monkeypatch.setattr(validation, "_top1", lambda *_: 0.5)
    assert "fell from 60.0" in workbench.train(settings, tmp_path).status["message"]


def test_what_cannot_be_measured_is_told(recipe, tmp_path):
    with pytest.raises(SettingError, match=r"training\.max_forgotten = 5.*evaluation\.during_training"):
        recipe(training__max_forgotten=5.0)
    with pytest.raises(SettingError, match=r"evaluation\.during_training = 'nowhere'"):
        workbench.train(recipe(evaluation__during_training=["nowhere"]), tmp_path)
    assert not (tmp_path / "checkpoints").exists()
