"""What cannot work is refused before any target is computed."""

import pytest

import workbench
from workbench.errors import SettingError
from workbench.training import trainer


@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"training.lr_multipliers.visul": 0.1}, "training.lr_multipliers"),
        ({"student.model": "demo_resnet18", "training.micro_batch": 4}, "training.micro_batch"),
        ({"data.limit": 1}, "data.source"),
    ],
)
def test_refused_before_targets(
    changes: dict[str, object], setting: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: object, **__: object) -> None:
        raise AssertionError("targets were computed")

    monkeypatch.setattr(trainer, "build_targets", too_late)
    settings = {"data.scenes": 24, "training.batch": 8, "student.initial_weights": {}, "student.frozen": []}
    settings |= {
        "student.cache_frozen": False,
        "student.freeze_batch_norm": False,
        "training.lr_multipliers": {},
    }
    recipe = workbench.Recipe.load("clip_kd_demo", {**settings, **changes})
    with pytest.raises(SettingError) as error:
        workbench.train(recipe, tmp_path / "run")
    assert error.value.setting == setting


def test_a_folder_of_another_recipe_is_refused_first(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "load_student", lambda _: pytest.fail("the student was loaded"))
    workbench.Recipe.load("task_only_demo").save(tmp_path / "recipe.yaml")
    with pytest.raises(SettingError, match="a run of another recipe"):
        workbench.train(workbench.Recipe.load("clip_kd_demo"), tmp_path)
