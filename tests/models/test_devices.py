"""Every path takes its device from the recipe: models are moved there, whoever asks."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import workbench
from workbench.errors import SettingError
from workbench.evaluation import suites
from workbench.models import devices
from workbench.models.dual_encoder import DualEncoder
from workbench.models.text_teacher import TextTeacher
from workbench.targets import cross_modal, image_text, text_embeddings
from workbench.targets.text_teacher import text_teacher_targets

SMALL = {"data.scenes": 16, "targets.batch": 8}


class Device:
    """Stands for a GPU: what is moved to it is noted, and stays where it is."""

    def __init__(self) -> None:
        self.moved: list[str] = []


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    device, move = Device(), torch.nn.Module.to

    def to(module: torch.nn.Module, *arguments: Any, **keywords: Any) -> torch.nn.Module:
        target = arguments[0] if arguments else keywords.get("device")
        if target == torch.device("meta"):
            device.moved.append(type(module).__name__)
            return module
        return move(module, *arguments, **keywords)

    monkeypatch.setattr(torch.nn.Module, "to", to)
    yield device


def test_the_recipe_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = workbench.Recipe.load("clip_kd_demo", {"training.device": "cpu"})
    auto = workbench.Recipe.load("clip_kd_demo")
    cuda = workbench.Recipe.load("clip_kd_demo", {"training.device": "cuda"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.device_of(cpu) == devices.device_of(auto) == torch.device("cpu")
    with pytest.raises(SettingError, match=r"training\.device = 'cuda'"):
        devices.device_of(cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert devices.device_of(auto) == devices.device_of(cuda) == torch.device("cuda", 1)
    assert devices.device_of(cpu) == torch.device("cpu")


def test_evaluation_moves_the_student(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "device_of", lambda recipe: torch.device("meta"))
    changes = {"evaluation.splits": ["val"], "evaluation.suites": ["retrieval"], "data.limit": 8}
    recipe = workbench.Recipe.load("task_only_demo", {**changes, "training.precision": "bfloat16"})
    model = workbench.models.load_dual_encoder("demo_student_plain")
    monkeypatch.setattr(suites, "available_splits", lambda *_, **__: ["val"])
    pairs = workbench.load_pairs("scenes", "val", limit=8)
    monkeypatch.setattr(suites, "load_pairs", lambda *_, **__: pairs)
    suites.evaluate(model, recipe)
    assert gpu.moved == [DualEncoder.__name__] and model.precision == "bfloat16"


@pytest.mark.parametrize("where", [image_text, cross_modal])
def test_targets_move_the_teacher(gpu: Device, where: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reached(Exception):
        pass

    def stop(*_: Any, **__: Any) -> None:
        raise Reached

    monkeypatch.setattr(where, "device_of", lambda recipe: torch.device("meta"))
    monkeypatch.setattr(image_text, "cached", stop)
    recipe = workbench.Recipe.load("dclip_demo", SMALL)
    teacher = image_text.load_teacher(recipe)
    pairs = workbench.load_pairs("scenes", "train", scenes=16)
    with pytest.raises(Reached):
        if where is image_text:
            image_text.compute_targets(recipe, pairs, teacher, say=None)
        else:
            cross_modal.cross_modal_inputs(recipe, pairs, teacher, say=None)
    assert gpu.moved == [DualEncoder.__name__]


def test_the_language_model_is_loaded_on_the_device_and_only_where_something_is_missing(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    load, loaded = text_embeddings.load_text_teacher, []

    def noted(model: str, **options: Any) -> TextTeacher:
        loaded.append(options["device"])
        return load(model, **options)

    monkeypatch.setattr(text_embeddings, "load_text_teacher", noted)
    recipe = workbench.Recipe.load("knowledge_clip_embedding_demo", SMALL)
    pairs = workbench.load_pairs("scenes", "train", scenes=16)
    device = torch.device("cpu")
    first = text_teacher_targets(recipe, pairs, tmp_path / "run", device=device)
    again = text_teacher_targets(recipe, pairs, tmp_path / "run", device=device)
    assert loaded == [device] and first is not None and again is not None
    assert (first.raw == again.raw).all()
    # Other captions want the model again.
    text_teacher_targets(recipe, pairs.select([0, 1, 2, 3]), tmp_path / "other", device=device)
    assert loaded == [device, device]
