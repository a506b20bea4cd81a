"""Dry runs: the paper's recipe at its true size, without weights, data or network."""

import pytest
import torch

from workbench.errors import SettingError
from workbench.models.loading import load_dual_encoder
from workbench.objectives import DistillationLoss
from workbench.recipe import Recipe
from workbench.recipe.schema import TextTeacher
from workbench.training.dry_run import dry_run
from workbench.training.learner import BatchTargets, Inputs, Learner
from workbench.training.memory import gpu_memory, kept_for_gradient, language_model


def test_a_student_and_its_teacher() -> None:
    rows = dict(dry_run(Recipe.load("dclip_demo", {"regions.proposer": "patches", "data.scenes": 128})))
    assert rows["Z, of a caption with its picture"] == "[2, 256]"
    assert rows["attention of words to regions"].endswith(", 16]")  # a feature map of 4 x 4
    assert rows["trained in the cross-modal teacher"] == f"{8 * 256 * 256 + 12 * 256:,}"
    assert "text" not in rows["trained in the student"]
    assert rows["cross-modal teacher's steps"] == "12 of 64: 6 epochs of 128 pairs"
    assert rows["steps"] == "6 of 64: 3 epochs of 128 pairs"


def test_a_grounded_teacher_takes_its_own_loss() -> None:
    """As `dclip_grounded` with ViT-B/16 and YOLOv8x, which takes half a minute and two gigabytes."""
    rows = dict(
        dry_run(Recipe.load("dclip_grounded_demo", {"regions.proposer": "patches", "data.scenes": 128}))
    )
    assert rows["attention of words to regions"].startswith("[2, 1, ")  # one map, as of one head
    assert rows["reached by no part of its loss"] == "sigmoid_bias"  # only the sigmoid form has it
    assert rows["cross-modal teacher's steps"] == "80 of 64: 40 epochs of 128 pairs"


def test_every_objective_takes_its_step() -> None:
    every = {"objectives.mfd": 1, "objectives.gd": 1, "objectives.afd": 1, "student.cache_frozen": False}
    rows = dict(dry_run(Recipe.load("clip_kd_demo", {**every, "data.scenes": 40})))
    terms = [item.split()[0] for item in rows["loss of 2 random pairs"].split(", ")]
    assert terms == ["loss", "task", "crd", "fd", "mfd", "gd", "icl", "afd"]


def test_data_that_are_not_here_are_counted_by_their_limit() -> None:
    settings = {"data.source": "/not/here", "student.model": "demo_student", "data.limit": 1000}
    rows = dict(dry_run(Recipe.load("task_only_demo", settings)))
    assert rows["steps"].endswith("of 1,000 pairs")
    rows = dict(dry_run(Recipe.load("task_only_demo", {**settings, "data.limit": None})))
    assert "unknown without the data" in rows["steps"]


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(SettingError, match=r"student\.trainable_image.*last_stage"):
        settings = {"student.trainable_image": "attention", "regions.proposer": "patches", "data.scenes": 128}
        dry_run(Recipe.load("dclip_demo", settings))


def test_the_memory_of_a_batch_is_foretold_from_a_few_pairs() -> None:
    """Beside what the graph of the whole batch keeps, on the true architecture."""
    torch.manual_seed(0)
    student = load_dual_encoder("vit_tiny_16")
    learner = Learner(student, DistillationLoss({"task": 1.0}, student.dim, None)).train()
    recipe = Recipe.from_settings(
        {"name": "memory", "student": {"model": "vit_tiny_16"}, "training": {"batch": 24}}
    )

    def inputs(pairs: int) -> Inputs:
        pictures = torch.zeros(pairs, 3, *student.transform.size, dtype=torch.uint8)
        return Inputs(pictures, student.tokenize(["a red apple"] * pairs))

    need = gpu_memory(recipe, learner, inputs(2), BatchTargets())
    kept = kept_for_gradient(learner, lambda: learner(*inputs(24)))
    assert need.activations == pytest.approx(kept, rel=0.05)
    weights = sum(parameter.numel() for parameter in learner.parameters())
    assert need.state == pytest.approx(4 * 5 * weights, rel=0.01)
    halved = gpu_memory(recipe, learner, inputs(2), BatchTargets(), processes=2)
    assert (need.pairs, halved.pairs) == (24, 12)
    assert halved.activations == pytest.approx(need.activations / 2, rel=0.05)


def test_language_models_count() -> None:
    assert language_model(TextTeacher(model="llama-2-7b")) == (6_607_343_616, 4096)
    assert language_model(TextTeacher(model="minilm"))[1] == 384
    assert language_model(TextTeacher(model="some/model")) is None
    rows = dict(dry_run(Recipe.load("knowledge_clip_demo", {"data.scenes": 40})))
    assert "embedding" in rows["loss of 2 random pairs"] and "concepts" in rows["loss of 2 random pairs"]
    assert "384 numbers" in rows["text teacher"]
    assert rows["cached: its embeddings of captions"].startswith("1.5 kB a caption, ")
