"""Dry runs: the paper's recipe at its true size, without weights, data or network."""

import pytest

from workbench.errors import SettingError
from workbench.recipe import Recipe
from workbench.training.dry_run import dry_run


def test_a_student_and_its_teacher() -> None:
    rows = dict(dry_run(Recipe.load("dclip_demo", {"regions.proposer": "patches"})))
    assert rows["Z, of a caption with its picture"] == "[2, 256]"
    assert rows["attention of words to regions"].endswith(", 16]")  # a feature map of 4 x 4
    assert rows["what learns in the cross-modal teacher"] == f"{8 * 256 * 256 + 12 * 256:,}"
    assert "text" not in rows["what learns in the student"]
    assert rows["cross-modal teacher's steps"] == "186 of 64: 6 epochs of 2,000 pairs"
    assert rows["steps"] == "93 of 64: 3 epochs of 2,000 pairs"


def test_every_objective_takes_its_step() -> None:
    every = {"objectives.mfd": 1, "objectives.gd": 1, "objectives.afd": 1, "student.cache_frozen": False}
    rows = dict(dry_run(Recipe.load("clip_kd_demo", every)))
    terms = [each.split()[0] for each in rows["loss of 2 random pairs"].split(", ")]
    assert terms == ["loss", "task", "crd", "fd", "mfd", "gd", "icl", "afd"]


def test_data_that_are_not_here_are_counted_by_their_limit() -> None:
    settings = {"data.source": "/not/here", "student.model": "demo_student", "data.limit": 1000}
    rows = dict(dry_run(Recipe.load("task_only_demo", settings)))
    assert rows["steps"].endswith("of 1,000 pairs")
    rows = dict(dry_run(Recipe.load("task_only_demo", {**settings, "data.limit": None})))
    assert "not here" in rows["steps"]


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(SettingError, match=r"student\.trainable_image.*last_stage"):
        dry_run(
            Recipe.load("dclip_demo", {"student.trainable_image": "attention", "regions.proposer": "patches"})
        )
