"""Students of pictures without captions: what trains, what is refused, what is measured."""

import json
from pathlib import Path
from typing import Any

import pytest

import workbench
from tests.conftest import TINY
from tests.data.samples import encoded
from workbench.errors import SettingError
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe

PICTURES = 12


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    teacher = load_dual_encoder(str(TINY)).save(tmp_path / "teacher")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(PICTURES):
        (pictures / f"{number}.jpg").write_bytes(encoded(number))
    return {
        "name": "x",
        "student": {"model": str(TINY)},
        "teacher": {"model": str(teacher)},
        "data": {"source": str(pictures), "val_share": 0.0, "test_share": 0.0, "validation_split": "train"},
        "objectives": {"task": 0.0, "fd": 1.0, "cosine": 0.5, "image_relations": 1.0},
        "training": {"batch": 4, "steps": 4, "warmup_steps": 1, "device": "cpu"},
        "evaluation": {"suites": ["retrieval"]},
    }


def test_no_captions_at_all(settings: dict[str, Any], tmp_path: Path) -> None:
    run = workbench.train(Recipe.from_settings(settings), tmp_path / "run")
    assert run.finished and run.metrics["fd"].notna().all()
    assert "cosine_to_teacher_text" not in run.metrics
    assert json.loads((run.path / "data.json").read_text())["train"]["without_caption"] == PICTURES
    report = run.evaluate()
    assert report == {"train": {}}


@pytest.mark.parametrize("captioned", [1, 7])
def test_some_captions(settings: dict[str, Any], captioned: int, tmp_path: Path) -> None:
    for number in range(captioned):
        Path(settings["data"]["source"], f"{number}.txt").write_text(f"picture {number}")
    run = workbench.train(Recipe.from_settings(settings), tmp_path / "run")
    assert run.finished and run.metrics["loss"].notna().all()
    facts = json.loads((run.path / "data.json").read_text())["train"]
    assert (facts["captions"], facts["without_caption"]) == (captioned, PICTURES - captioned)
    assert not facts["skipped"]
    assert run.evaluate()["train"]["text_to_image_r10"] == 1


@pytest.mark.parametrize("name", ["task", "crd", "gd", "icl", "afd"])
def test_what_needs_captions_is_refused_by_name(settings: dict[str, Any], name: str, tmp_path: Path) -> None:
    recipe = Recipe.from_settings(settings, {f"objectives.{name}": 1.0})
    with pytest.raises(SettingError, match=rf"objectives\.{name} = 1\.0: it needs captions.*fd"):
        workbench.train(recipe, tmp_path / "run")
