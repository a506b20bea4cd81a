"""CLIP-KD's recipes: models that exist, the weights of the paper in our units, controls that match."""

from pathlib import Path

import open_clip
import pytest
import torch
from torch.nn import functional as F

from tests.data.samples import pair_members, write_shard
from workbench.data.load import load_pairs
from workbench.models.loading import shipped_models
from workbench.models.package_weights import ASSETS
from workbench.objectives import feature_distillation
from workbench.recipe import Recipe, differences

SINGLE = ("crd", "fd", "mfd", "gd", "icl", "afd")


@pytest.mark.parametrize("name", Recipe.names())
def test_shipped_recipes_name_models_that_exist(name: str) -> None:
    recipe = Recipe.load(name)
    for model in (recipe.student, *recipe.named_teachers.values()):
        assert model.model in [*shipped_models(), *open_clip.list_models()]
        if model.pretrained is not None:
            tags = open_clip.list_pretrained_tags_by_model(model.model)
            assert model.pretrained in [*tags, *(path.stem for path in ASSETS.glob("*.safetensors"))]
    assert len(recipe.description) <= 100


def test_the_paper_recipe_has_the_releases_settings() -> None:
    recipe = Recipe.load("clip_kd")
    assert recipe.objectives.weights() == {"task": 1.0, "crd": 1.0, "fd": 2000 / 512, "icl": 1.0}
    training = recipe.training
    assert (training.epochs, training.batch, training.lr, training.weight_decay) == (32, 1024, 1e-3, 0.1)
    assert (training.betas, training.eps, training.warmup_steps) == ((0.9, 0.98), 1e-6, 10_000)
    assert (training.clip_norm, training.augmentation.crop_scale, recipe.seed) == (None, (0.9, 1.0), 0)
    # CC3M's 2.89 million pairs and CC12M's 9.97 make the release's number of steps.
    assert 32 * (12_860_000 // training.batch) == pytest.approx(402_000, rel=1e-3)


@pytest.mark.parametrize("weight", ["fd", "mfd"])
def test_feature_distillation_pulls_as_hard_as_the_releases_2000_at_width_512(weight: str) -> None:
    student = torch.randn(16, 512, requires_grad=True)
    teacher = torch.randn(16, 512)
    theirs = 2000 * F.mse_loss(F.normalize(student, dim=1), F.normalize(teacher, dim=1))
    ours = getattr(Recipe.load(weight).objectives, weight) * feature_distillation(student, teacher)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, student)[0], torch.autograd.grad(theirs, student)[0])


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("suffix", ["", "_demo"])
def test_a_single_objective_stands_beside_the_task_loss(name: str, suffix: str) -> None:
    recipe, mixture = Recipe.load(name + suffix), Recipe.load(f"clip_kd{suffix}")
    assert recipe.objectives.weights().keys() == {"task", name}
    apart = {setting for setting in differences(recipe, mixture) if not setting.startswith("objectives.")}
    assert apart == ({"training.clip_norm"} if recipe.name == "gd" else set())
    if name in mixture.objectives.weights():
        assert getattr(recipe.objectives, name) == getattr(mixture.objectives, name)


def test_masked_features_hide_what_the_release_hides() -> None:
    assert Recipe.load("mfd").training.masking.ratio == 0.75


def test_the_control_differs_from_the_mixture_in_the_loss_only() -> None:
    apart = differences(Recipe.load("clip_kd"), Recipe.load("task_only"))
    assert {setting.split(".")[0] for setting in apart} == {"teacher", "objectives"}
    assert Recipe.load("task_only").objectives.weights() == {"task": 1.0}


def test_another_student_is_all_that_the_demo_with_a_resnet_changes() -> None:
    assert differences(Recipe.load("clip_kd_resnet18_demo"), Recipe.load("clip_kd_scratch_demo")) == {
        "student.model": ("demo_resnet18", "demo_student")
    }


def test_the_twin_from_nothing_inherits_nothing() -> None:
    scratch = Recipe.load("clip_kd_scratch_demo")
    assert not scratch.student.initial_weights and not scratch.student.frozen
    apart = differences(scratch, Recipe.load("clip_kd_demo"))
    assert {setting.split(".")[0] for setting in apart} == {"student", "training"}
    assert {name for name in apart if name.startswith("training")} == {"training.lr_multipliers"}


def test_the_paper_recipes_pattern_keeps_validation_shards_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, folder in enumerate(("train/cc3m", "train/cc12m", "val")):
        write_shard(tmp_path / "cc" / folder / "00000.tar", pair_members(number))
    data = Recipe.load("clip_kd").data
    train = load_pairs(data.source, data.train_split, **data.options())
    held_out = load_pairs(data.source, data.validation_split, **data.options(train=False))
    assert sorted(train.all_captions) == ["picture number 0", "picture number 1"]
    assert list(held_out.all_captions) == ["picture number 2"]
