"""What cannot work is refused before any target is computed."""

import pytest

import workbench
from workbench.errors import SettingError
from workbench.runs.folder import claim_folder, read_recipe
from workbench.training import trainer
from workbench.training.checks import check_failures


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
    (tmp_path / "metrics.jsonl").write_text('{"kind": "step", "step": 1}\n')
    with pytest.raises(SettingError, match="a run of another recipe"):
        workbench.train(workbench.Recipe.load("clip_kd_demo"), tmp_path)


def test_a_folder_is_claimed_by_its_first_step(tmp_path) -> None:
    first, second = (workbench.Recipe.load("task_only_demo", {"seed": seed}) for seed in (0, 1))
    claim_folder(tmp_path, first)
    claim_folder(tmp_path, second)  # the other never began
    assert read_recipe(tmp_path).seed == 1
    (tmp_path / "metrics.jsonl").write_text('{"kind": "step", "step": 1}\n')
    with pytest.raises(SettingError, match="seed: 1 there, 0 now"):
        claim_folder(tmp_path, first)
    patient = workbench.Recipe.load("task_only_demo", {"seed": 1, "data.max_failed": 0.5})
    claim_folder(tmp_path, patient)  # how much may fail decides nothing that comes of a run
    assert read_recipe(tmp_path).data.max_failed == 0.5


def test_failures_name_the_first_ids_of_each_reason() -> None:
    recipe = workbench.Recipe.load("task_only_demo")
    failed = {f"{number}.jpg": "empty file" for number in range(4)} | {"9.jpg": "missing file"}
    with pytest.raises(
        SettingError, match=r"empty file: 4 \(0\.jpg, 1\.jpg, 2\.jpg, \.\.\.\), missing file: 1"
    ):
        check_failures(failed, 10, recipe)
    check_failures({"9.jpg": "missing file"}, 100, recipe)
