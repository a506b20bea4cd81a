"""Students of several teachers: trained, stopped, resumed, with views, in chunks and without captions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import workbench
from tests.training.test_any_teacher import Colours, resumed_at
from workbench.data.load import load_pairs
from workbench.errors import SettingError
from workbench.files import read_json
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe
from workbench.runs.checkpoint import load_latest
from workbench.targets.build import build_targets, teachers_answers
from workbench.training.dry_run import dry_run
from workbench.training.trainer import distillation_loss, load_student

STEPS = 4


@pytest.fixture(scope="module")
def second_teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(11)
    model = load_dual_encoder("demo_student_plain")
    return str(model.save(tmp_path_factory.mktemp("second")))


@pytest.fixture
def recipe(settings: dict[str, Any], second_teacher: str, tmp_path: Path) -> Any:
    def make(*teachers: dict[str, Any], **changes: Any) -> Recipe:
        ensemble = [{**settings["teacher"], "weight": 3.0}, {"model": second_teacher, "scale": 60.0}]
        kept = {name: value for name, value in settings.items() if name != "teacher"}
        several = {"teachers": list(teachers) or ensemble, "targets": {"folder": str(tmp_path / "store")}}
        steps = {"training.steps": STEPS, "training.validate_every": STEPS}
        overrides = {name.replace("__", "."): value for name, value in changes.items()}
        return Recipe.from_settings(kept | several, steps | overrides)

    return make


@pytest.mark.parametrize(
    "changes",
    [
        {"targets__views": 2, "training__micro_batch": 4},
        {"training__loss_chunk": 3, "objectives__afd": 0.5, "objectives__mfd": 1.0},
    ],
    ids=["views in micro-batches", "chunks with parts of objectives"],
)
def test_they_teach_and_a_resumed_run_is_the_same(
    recipe: Any, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(**changes)
    straight = workbench.train(wanted, tmp_path / "straight")
    assert straight.finished and straight.metrics[["crd", "fd", "icl"]].gt(0).all(axis=None)
    assert straight.metrics["cosine_to_teacher_image"].between(-1, 1).all()
    resumed_at(2, monkeypatch)
    assert workbench.train(wanted, tmp_path / "part").status["state"] == "interrupted"
    monkeypatch.undo()
    again = workbench.train(wanted, tmp_path / "part")
    ends = [load_latest(run.path / "checkpoints").tensors for run in (straight, again)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    learned = {name for name in ends[0] if "image_head.1." in name or "own_parts.1." in name}
    assert any("image_head" in name for name in learned) and any("own_parts" in name for name in learned)


def test_every_teacher_has_its_own_store_and_scale(recipe: Any, tmp_path: Path) -> None:
    wanted = recipe()
    stores = dict(teachers_answers(wanted))
    assert list(stores) == ["teachers.0", "teachers.1"]
    assert [store.folder for store in stores.values()] == [tmp_path / "store" / name for name in stores]
    pairs = load_pairs("scenes", "train", scenes=27, image_size=32)
    student = load_student(wanted)
    targets = build_targets(wanted, pairs, student, tmp_path)
    model = load_dual_encoder(wanted.teachers[1].model)
    captions = list(pairs.all_captions)
    expected = F.normalize(model.eval().encode_text(model.tokenize(captions)), dim=1).detach().numpy()
    np.testing.assert_allclose(targets.teachers[1].store.column("text"), expected, atol=2e-3)
    assert [teacher.scale for teacher in targets.teachers] == [pytest.approx(1 / 0.07), 60.0]
    assert [member.weight for member in distillation_loss(wanted, student, targets).members] == [3, 1]
    assert targets.cut.keys() == {"student", "teachers.0", "teachers.1"}


def test_an_object_a_tower_of_pictures_and_pictures_without_captions(
    recipe: Any, second_teacher: str, tmp_path: Path
) -> None:
    from tests.data.samples import encoded

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(8):
        (pictures / f"{number}.jpg").write_bytes(encoded(number))
    wanted = recipe(
        *({"model": "python"}, {"model": second_teacher}),
        data__source=str(pictures), data__val_share=0.0, data__test_share=0.0,
        data__validation_split="train", objectives={"task": 0, "crd": 0, "icl": 0, "image_relations": 1.0},
    )  # fmt: skip
    run = workbench.train(wanted, tmp_path / "run", teacher=Colours("image"))
    assert run.finished and run.metrics[["fd", "image_relations"]].gt(0).all(axis=None)
    known = read_json(run.path / "weights.json")
    assert known["teacher"].startswith(f"a Python object (Colours); {second_teacher}")
    assert len(known["object"]) == 64


def test_a_side_that_one_of_them_lacks_is_named_before_any_target(
    recipe: Any, second_teacher: str, tmp_path: Path
) -> None:
    wanted = recipe({"model": second_teacher}, {"model": "python"}, objectives__fd=0.0)
    with pytest.raises(
        SettingError, match=r"teachers\.1\.model = 'python'.*objectives\.crd, objectives\.icl"
    ):
        workbench.train(wanted, tmp_path / "run", teacher=Colours("image"))
    assert not (tmp_path / "store").exists()
    wrong = recipe({"model": second_teacher}, {"model": "timm/resnet18"})
    with pytest.raises(SettingError, match=r"teachers\.1\.pretrained = None"):
        workbench.train(wrong, tmp_path / "run")


def test_a_dry_run_names_them_all(recipe: Any, second_teacher: str) -> None:
    rows = dict(dry_run(recipe()))
    assert rows["teachers.1"].startswith(second_teacher) and "icl" in rows["loss of 2 random pairs"]


def test_cards_name_them_all(recipe: Any, second_teacher: str, tmp_path: Path) -> None:
    run = workbench.train(recipe(training__steps=2), tmp_path / "run")
    card = (run.export(tmp_path / "exported") / "README.md").read_text()
    assert card.count("Teacher: ") == 2 and f"Teacher: `.../{Path(second_teacher).name}`" in card
    assert second_teacher not in card  # which shows no folders
