"""Training the cross-modal teacher: it learns, resumes to the same weights, pairs captions as told; students
learn from it and leave the text tower as it was."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import workbench
from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.evaluation.probes.leak_probe import leak_probe
from workbench.models.loading import load_dual_encoder
from workbench.objectives import contrastive_loss
from workbench.recipe import Recipe
from workbench.targets.build import build_targets
from workbench.targets.cross_modal import cross_modal_inputs
from workbench.targets.image_text import load_teacher
from workbench.training.teacher import bare, teacher_run
from workbench.training.teacher_losses import epoch_captions, validation_loss
from workbench.training.trainer import load_student

TINY = Path(__file__).parents[1] / "tiny_vit.json"


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
            "data": {"scenes": 24},
            "student": {"model": str(tower), "trainable_text": False},
            "teacher": {"model": str(tower)},
            "regions": {"proposer": "ground_truth", "limit": 4},
            "cross_modal": {"epochs": 2, "batch": 8, "lr": 1e-3},
            "targets": {"batch": 32},
            "training": {"validation_pairs": 50},
        }
        return Recipe.from_settings(
            settings, {name.replace("__", "."): value for name, value in changes.items()}
        )

    return make


def student(recipe, **changes) -> Recipe:
    more = {
        "trains": "student",
        "objectives.cross_modal": 1,
        "training.epochs": 1,
        "training.batch": 8,
        "training.scale": 20,
        "training.warmup_steps": 0,
    }
    return Recipe.from_settings(recipe().model_dump(mode="json"), {**more, **changes})


def test_it_learns_and_keeps_every_epoch(recipe, tmp_path) -> None:
    run = workbench.train(recipe(cross_modal__epochs=4), tmp_path / "run")
    assert run.status["state"] == "finished" and len(run.metrics) == 12
    probes = run.validations
    assert len(probes) == 5 and probes["loss"].iloc[-1] < probes["loss"].iloc[0]
    assert {"recall_of_z_whole", "recall_of_z_emptied", "recall_of_z_shuffled"} <= set(probes.columns)
    weights = [run.cross_modal_teacher(epoch).token_norm.weight for epoch in (1, 2, 4)]
    assert not torch.equal(weights[0], weights[1])
    assert torch.equal(weights[2], run.cross_modal_teacher().token_norm.weight)
    with pytest.raises(SettingError, match=r"cross-modal teacher.*cross_modal_teacher\(\)"):
        run.model()


def test_an_epoch_of_a_longer_run_is_the_end_of_a_shorter(recipe, tmp_path) -> None:
    short = workbench.train(recipe(cross_modal__epochs=1), tmp_path / "short").cross_modal_teacher()
    long = workbench.train(recipe(cross_modal__epochs=2), tmp_path / "long").cross_modal_teacher(1)
    assert all(torch.equal(a, b) for a, b in zip(short.parameters(), long.parameters(), strict=True))


def test_an_interrupted_run_ends_in_the_same_weights(recipe, tmp_path, monkeypatch) -> None:
    whole = workbench.train(recipe(), tmp_path / "whole").cross_modal_teacher()
    from workbench.training import teacher_losses as teacher

    real, calls = teacher._loss, []

    def stops(*arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(teacher, "_loss", stops)
    with pytest.raises(KeyboardInterrupt):
        workbench.train(recipe(), tmp_path / "broken")
    assert workbench.Run(tmp_path / "broken").status["state"] == "interrupted"
    monkeypatch.setattr(teacher, "_loss", real)
    resumed = workbench.train(recipe(), tmp_path / "broken").cross_modal_teacher()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_captions_that_are_matched(recipe) -> None:
    pairs = load_pairs("scenes", "train", scenes=24)
    rows = np.arange(24)
    read, matched = epoch_captions(recipe(), pairs, rows, 0)
    assert np.array_equal(read, matched)
    leak_free = recipe(cross_modal__caption_pairing="leak_free")
    seen = set()
    for epoch in range(20):
        read, matched = epoch_captions(leak_free, pairs, rows, epoch)
        assert (read != matched).all()
        assert (pairs.image_of_caption[read] == rows).all() and (
            pairs.image_of_caption[matched] == rows
        ).all()
        seen |= {(int(r), int(m)) for r, m in zip(read % 5, matched % 5, strict=True)}
    assert len(seen) == 20  # every caption is matched with every other


def test_the_shortcut_shows_in_the_probe(recipe) -> None:
    """The words of a caption alone give its embedding away; another picture's regions do not help."""
    chosen = recipe(regions__proposer="whole_image")
    pairs = load_pairs("scenes", "val").select(range(40))
    inputs = cross_modal_inputs(chosen, pairs, load_teacher(chosen), say=None)
    torch.manual_seed(0)
    teacher = workbench.models.CrossModalTeacher(load_teacher(chosen).dim)
    result = leak_probe(teacher, inputs, pairs.first_caption[:-1])
    assert set(result) == {"whole", "emptied", "shuffled"} and all(
        0 <= value <= 1 for value in result.values()
    )
    assert result["emptied"] > 3 / 40


def test_the_validation_loss_pairs_as_training_does_on_every_batch(recipe) -> None:
    pairs = load_pairs("scenes", "val").select(range(21))
    frozen = load_teacher(recipe())
    torch.manual_seed(0)
    teacher = workbench.models.CrossModalTeacher(frozen.dim).eval()
    losses = {}
    for pairing in ("same", "leak_free"):
        chosen = recipe(cross_modal__caption_pairing=pairing)
        inputs = cross_modal_inputs(chosen, pairs, frozen, say=None)
        losses[pairing] = validation_loss(chosen, teacher, inputs, 8)
        read = pairs.first_caption[:-1]
        matched = read + (pairing == "leak_free")
        with torch.no_grad():
            expected = [
                contrastive_loss(
                    teacher(**inputs(read[start : start + 8])).embedding,
                    inputs.embedding_of(matched[start : start + 8]),
                    1 / chosen.cross_modal.temperature,
                )
                for start in (0, 8)
            ]
        assert losses[pairing] == pytest.approx(float(np.mean(expected)), rel=1e-5)
    assert losses["same"] != losses["leak_free"]
    table = pairs.table.set_column(
        pairs.table.column_names.index("captions"),
        "captions",
        pa.array([of_one[:1] for of_one in pairs.table["captions"].to_pylist()]),
    )
    alone = Pairs(table, pairs.image, name="one caption each", split="val")
    inputs = cross_modal_inputs(chosen, alone, frozen, say=None)
    assert validation_loss(chosen, teacher, inputs, 8) is None


def test_preservation_holds_to_the_start_or_is_refused(recipe, tower, tmp_path) -> None:
    torch.manual_seed(1)
    other = load_dual_encoder(str(TINY)).save(tmp_path / "other")
    control = {"cross_modal.control": "null", "objectives.preservation": 0.3}
    pairs = load_pairs("scenes", "train", scenes=24)
    for trainable in ("all", "lora"):
        same = student(recipe, **control, **{"student.trainable_image": trainable})
        (teacher,) = build_targets(same, pairs, load_student(same), tmp_path).teachers
        assert teacher.width == 16
    elsewhere = student(recipe, **control, **{"student.model": str(other)})
    with pytest.raises(SettingError, match=r"objectives\.preservation = 0\.3.*does not start as the teacher"):
        build_targets(elsewhere, pairs, load_student(elsewhere), tmp_path)


def test_controls_change_what_is_read(recipe) -> None:
    pairs = load_pairs("scenes", "train", scenes=24)
    frozen = load_teacher(recipe())
    captions = np.array([0, 7, 50])
    plain = cross_modal_inputs(recipe(), pairs, frozen, say=None)
    same = plain(captions)
    text_only = cross_modal_inputs(recipe(cross_modal__control="text_only"), pairs, frozen, say=None)(
        captions
    )
    assert not text_only["region_mask"].any() and same["region_mask"].any(1).all()
    other = cross_modal_inputs(recipe(cross_modal__control="shuffled_regions"), pairs, frozen, say=None)
    assert (other.other != np.arange(24)).all() and sorted(other.other) == list(range(24))
    swapped = other(captions)["regions"][0]
    rows = plain.regions.rows(other.other[:1]).embeddings[0]
    np.testing.assert_allclose(swapped[: len(rows)], rows.astype(np.float32))
    unweighed = cross_modal_inputs(recipe(cross_modal__weigh_regions=False), pairs, frozen, say=None)
    assert unweighed(captions)["region_weights"] is None
    np.testing.assert_allclose(same["region_weights"].sum(1), 1, rtol=1e-5)


def test_a_student_learns_and_its_text_tower_stays(recipe, tower, tmp_path) -> None:
    run = workbench.train(student(recipe, **{"training.epochs": 10}), tmp_path / "student")
    before, after = load_dual_encoder(str(tower)).clip.state_dict(), run.model().clip.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("visual.") for name in changed)
    assert run.metrics["cross_modal"].iloc[-1] < run.metrics["cross_modal"].iloc[0]
    teacher = teacher_run(student(recipe), tmp_path / "student")
    assert teacher.path.parent == tmp_path and teacher.recipe.trains == "cross_modal_teacher"
    # Another student of the same teacher finds it.
    another = student(recipe, **{"objectives.preservation": 0.3})
    assert teacher_run(another, tmp_path / "another").path == teacher.path


@pytest.mark.slow
def test_two_processes_train_as_one(recipe, tmp_path) -> None:
    """One of them trains the teacher while the other waits."""
    alone = workbench.train(student(recipe), tmp_path / "one" / "student")
    together = workbench.launch(student(recipe), 2, tmp_path / "two" / "student").wait()
    assert together.status["state"] == "finished"
    for ours, theirs in zip(alone.model().parameters(), together.model().parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_known_text_is_what_the_tower_says(recipe, tmp_path, monkeypatch) -> None:
    """Looked-up embeddings of captions train the same student as computed ones, to their float16."""
    looked_up = workbench.train(student(recipe), tmp_path / "looked-up").model()
    monkeypatch.setattr("workbench.training.batch_inputs.trainable_parameters", lambda _: {"text": 1})
    computed = workbench.train(student(recipe), tmp_path / "computed").model()
    images = torch.randint(0, 256, (4, 3, *computed.transform.size), dtype=torch.uint8)
    ours, theirs = (model.encode_image(images) for model in (looked_up, computed))
    assert torch.nn.functional.cosine_similarity(ours, theirs).min() > 0.9999


def test_the_null_teacher_is_the_caption(recipe, tmp_path) -> None:
    null = student(recipe, **{"cross_modal.control": "null"})
    pairs, frozen = load_pairs("scenes", "train", scenes=24), load_teacher(recipe())
    targets = build_targets(null, pairs, load_dual_encoder(str(TINY)), tmp_path / "student")
    with torch.no_grad():
        text = frozen.model.encode_text(frozen.model.tokenize(pairs.all_captions))
    np.testing.assert_allclose(targets.cross_modal, torch.nn.functional.normalize(text, dim=1), atol=2e-3)
    assert not list(tmp_path.iterdir())  # nothing was trained


def test_runs_that_do_not_fit_are_refused(recipe, tmp_path) -> None:
    little = workbench.train(student(recipe, **{"objectives.cross_modal": 0}), tmp_path / "student")
    with pytest.raises(SettingError, match=r"cross_modal\.run.*student"):
        teacher_run(student(recipe, **{"cross_modal.run": str(little.path)}), tmp_path / "x")
    with pytest.raises(SettingError, match=r"cross_modal\.run = 'nosuch'.*folder of a run"):
        teacher_run(student(recipe, **{"cross_modal.run": "nosuch"}), tmp_path / "x")
    with pytest.raises(SettingError, match=r"cross_modal\.heads = 3.*width of 16"):
        workbench.train(recipe(cross_modal__heads=3), tmp_path / "heads")
    with pytest.raises(SettingError, match=r"cross_modal\.epoch = 3"):
        recipe(cross_modal__epoch=3)
    with pytest.raises(SettingError, match=r"training\.epochs.*cross_modal\.epochs"):
        recipe(training__epochs=5)
    assert bare(student(recipe)).fingerprint == bare(recipe()).fingerprint
