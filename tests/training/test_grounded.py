"""Training the grounded teacher: it learns, needs its own regions, resumes to the same weights; boxes are
exchanged where that makes the false caption true; a student learns from it, alone and on two processes."""

from pathlib import Path

import numpy as np
import pytest
import torch

import workbench
from tests.training.test_teacher import student
from workbench.data.load import load_pairs
from workbench.errors import SettingError
from workbench.evaluation.probes.grounding import choices
from workbench.evaluation.probes.leak_probe import leak_probe
from workbench.evaluation.probes.pointing import pointing_accuracy
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe
from workbench.targets.build import build_targets
from workbench.targets.cross_modal import cross_modal_inputs, new_teacher
from workbench.targets.false_captions import FalseTargets
from workbench.targets.image_text import load_teacher
from workbench.training.grounded import GroundedLoss
from workbench.training.teacher import bare, open_teacher_run

TINY = Path(__file__).parents[1] / "tiny_vit.json"
SCENES = 24


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    torch.manual_seed(0)
    return load_dual_encoder(str(TINY)).save(tmp_path_factory.mktemp("tower"))


@pytest.fixture
def recipe(tower):
    def make(**changes) -> Recipe:
        settings = {
            "name": "little",
            "trains": "cross_modal_teacher",
            "data": {"scenes": SCENES},
            "student": {"model": str(tower), "trainable_text": False},
            "teacher": {"model": str(tower)},
            "regions": {"proposer": "ground_truth", "limit": 4},
            "cross_modal": {
                "interaction": "text_conditioned", "weigh_regions": False, "hard_negatives": 1.0,
                "epochs": 2, "batch": 8, "lr": 1e-3, "heads": 4,
            },
            "targets": {"batch": 32},
            "training": {"validation_pairs": 100},
        }  # fmt: skip
        return Recipe.from_settings(
            settings, {name.replace("__", "."): value for name, value in changes.items()}
        )

    return make


@pytest.fixture
def parts(recipe):
    pairs = load_pairs("scenes", "train", scenes=SCENES)
    frozen = load_teacher(recipe())
    inputs = cross_modal_inputs(recipe(), pairs, frozen, say=None)
    return inputs, FalseTargets(recipe(), pairs, frozen, say=None), frozen


@pytest.mark.parametrize("matching", ["softmax", "sigmoid"])
def test_it_learns_and_records_what_it_can_tell(recipe, tmp_path, matching) -> None:
    run = workbench.train(recipe(cross_modal__epochs=12, cross_modal__matching=matching), tmp_path / "run")
    assert run.status["state"] == "finished" and len(run.metrics) == 36
    assert run.metrics["loss"].iloc[-6:].mean() < run.metrics["loss"].iloc[:6].mean()
    recorded = run.validations.iloc[-1]
    for name in ("swapped_relation", "swapped_attribute", "replaced_word", "pointing_accuracy"):
        assert 0 <= recorded[name] <= 1
    assert recorded["recall_of_z_shuffled"] < 0.05  # of 100 pictures
    assert recorded["recall_of_z_emptied"] == 0


def test_an_interrupted_run_ends_in_the_same_weights(recipe, tmp_path, monkeypatch) -> None:
    whole = workbench.train(recipe(), tmp_path / "whole").cross_modal_teacher()
    real, calls = GroundedLoss.__call__, []

    def stops(self, *arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(GroundedLoss, "__call__", stops)
    with pytest.raises(KeyboardInterrupt):
        workbench.train(recipe(), tmp_path / "broken")
    monkeypatch.setattr(GroundedLoss, "__call__", real)
    resumed = workbench.train(recipe(), tmp_path / "broken").cross_modal_teacher()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_boxes_change_places_with_the_captions(recipe, parts, monkeypatch) -> None:
    """A turned picture has the boxes of two regions exchanged and the false caption as its own."""
    inputs, false, frozen = parts
    teacher, seen = new_teacher(recipe(), frozen.dim), []
    real = teacher.scores

    def watched(tokens, mask, regions, region_mask, boxes, text):
        seen.append((boxes.clone(), text.clone()))
        return real(tokens, mask, regions, region_mask, boxes, text)

    monkeypatch.setattr(teacher, "scores", watched)
    loss, rows = GroundedLoss(recipe(), inputs, false), np.arange(SCENES)
    for epoch in range(4):
        loss(teacher, rows, epoch)
    plain = torch.from_numpy(inputs.regions.rows(rows).boxes)
    texts = {False: np.asarray(inputs.text), True: np.asarray(false.text)}
    turned = 0
    for boxes, text in seen:
        for row in range(SCENES):
            changed = [at for at in range(boxes.shape[1]) if not torch.equal(boxes[row, at], plain[row, at])]
            is_false = (texts[True] == text[row].half().numpy()).all(1).any()
            is_true = (texts[False] == text[row].half().numpy()).all(1).any()
            if changed:
                one, other = changed
                assert torch.equal(boxes[row, one], plain[row, other])
                assert is_false and not is_true
                turned += 1
            else:
                assert is_true
    assert turned > 10


def test_a_share_of_the_batch_brings_false_captions(recipe, parts, monkeypatch) -> None:
    inputs, false, frozen = parts
    widths = {}
    for share in (0.0, 0.5, 1.0):
        chosen = recipe(cross_modal__hard_negatives=share)
        teacher = new_teacher(chosen, frozen.dim)
        real, seen = teacher.scores, []
        monkeypatch.setattr(
            teacher, "scores", lambda *given, real=real, seen=seen: seen.append(len(given[0])) or real(*given)
        )
        GroundedLoss(chosen, inputs, false)(teacher, np.arange(SCENES), 0)
        widths[share] = seen[0] - SCENES
    assert widths[0.0] == 0 and 0 < widths[0.5] < widths[1.0] <= SCENES


@pytest.mark.slow
def test_a_student_learns_from_it_alone_and_on_two_processes(recipe, tower, tmp_path) -> None:
    alone = workbench.train(student(recipe), tmp_path / "one" / "student")
    assert alone.status["state"] == "finished" and np.isfinite(alone.metrics["cross_modal"]).all()
    before, after = load_dual_encoder(str(tower)).clip.state_dict(), alone.model().clip.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("visual.") for name in changed)
    together = workbench.launch(student(recipe), 2, tmp_path / "two" / "student").wait()
    assert together.status["state"] == "finished"
    for ours, theirs in zip(alone.model().parameters(), together.model().parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_a_student_has_hard_negatives_whether_its_text_tower_learns_or_not(recipe, tmp_path) -> None:
    """Embeddings that were computed once are those that the tower computes in a step."""
    changes = {"objectives.cross_modal": 0, "training.hard_negatives": 1.0, "training.lr": 1e-6}
    learned = {}
    for text in (False, True):
        chosen = student(recipe, **changes, **{"student.trainable_text": text})
        learned[text] = workbench.train(chosen, tmp_path / f"text-{text}")
    first = [run.metrics["task"].iloc[0] for run in learned.values()]
    assert first[0] == pytest.approx(first[1], rel=2e-3)  # kept as float16
    plain = workbench.train(
        student(recipe, **{**changes, "training.hard_negatives": 0.0}), tmp_path / "plain"
    )
    assert plain.metrics["task"].iloc[0] < first[0] - 0.1
    again = workbench.launch(learned[True].recipe, 2, tmp_path / "two").wait()
    assert again.metrics["task"].iloc[0] == pytest.approx(first[1], rel=1e-4)


def test_a_named_teacher_may_be_asked_before_other_regions(recipe, parts, tmp_path) -> None:
    """`cross_modal.control` changes what it is asked about, not how it was trained."""
    inputs, _, _ = parts
    run = workbench.train(recipe(cross_modal__epochs=1), tmp_path / "teacher")
    pairs, model = inputs.pairs, load_dual_encoder(str(run.recipe.student.model))
    trained = run.recipe, run.cross_modal_teacher()

    def answers(control: str) -> np.ndarray:
        named = {"cross_modal.run": str(run.path), "cross_modal.control": control}
        return build_targets(student(recipe, **named), pairs, model, tmp_path, trained, say=None).cross_modal

    own = answers("none")
    assert own.any() and not np.allclose(own, answers("shuffled_regions"), atol=1e-2)
    with pytest.raises(SettingError, match=r"cross_modal\.control.*text_conditioned.*shuffled_regions"):
        answers("text_only")


@pytest.mark.parametrize("interaction", ["text_conditioned", "condensed"])
def test_a_teacher_that_pools_regions_alone_cannot_do_without_them(interaction: str) -> None:
    settings = {"cross_modal.interaction": interaction, "cross_modal.weigh_regions": False}
    with pytest.raises(SettingError, match=rf"cross_modal\.control.*{interaction}"):
        Recipe.load("dclip_demo", {**settings, "cross_modal.control": "text_only"})


def test_settings_of_the_other_teacher_are_refused(recipe) -> None:
    with pytest.raises(SettingError, match=r"cross_modal\.weigh_regions.*text_conditioned.*False"):
        recipe(cross_modal__weigh_regions=True)
    with pytest.raises(SettingError, match=r"cross_modal\.clusters.*text_conditioned"):
        recipe(cross_modal__clusters=3)
    with pytest.raises(SettingError, match=r"cross_modal\.hard_negatives.*attention"):
        Recipe.load("dclip_demo", {"cross_modal.hard_negatives": 0.5})
    with pytest.raises(SettingError, match="hard_negatives"):
        recipe(cross_modal__hard_negatives=1.5)


def test_recipes_of_before_keep_their_fingerprint() -> None:
    assert Recipe.load("dclip_demo").fingerprint.startswith("19ef04103e3e75c5")


def test_the_shipped_teacher_points_tells_relations_and_needs_its_regions() -> None:
    run = open_teacher_run("grounded_demo")
    assert run.recipe.fingerprint == bare(Recipe.load("dclip_grounded_demo")).fingerprint
    teacher, frozen = run.cross_modal_teacher(), load_teacher(run.recipe)
    pairs = load_pairs("scenes", "val", image_size=run.recipe.data.image_size).select(range(80))
    inputs = cross_modal_inputs(run.recipe, pairs, frozen, say=None)
    result = pointing_accuracy(teacher, inputs, frozen.model, pairs.first_caption[:-1] + 1)
    assert result is not None and result.accuracy > 0.9 > 2 * result.chance
    recalls = leak_probe(teacher, inputs, pairs.first_caption[:-1])
    assert recalls["whole"] > 0.4 and recalls["shuffled"] < 0.05 and recalls["emptied"] == 0
    accuracies = choices(teacher, inputs, FalseTargets(run.recipe, pairs, frozen, say=None))
    assert accuracies["swapped_relation"].accuracy > 0.85
    assert run.validations["recall_of_z_shuffled"].max() < 0.01  # the curve in notebook 04
