"""Frozen layers seen once: the same training to the bit, in less time, refused where it would differ."""

import numpy as np
import pytest
import torch

import workbench
from workbench.data.load import load_pairs
from workbench.errors import SettingError
from workbench.models.frozen_layers import frozen_maps
from workbench.models.loading import load_dual_encoder
from workbench.targets.frozen_maps import mapped_pairs

SETTINGS = {
    **{"data.scenes": 48, "data.validation_split": "val_concepts", "training.steps": 4},
    **{"training.batch": 16, "training.warmup_steps": 1, "training.validate_every": 100},
}


def recipe(**changes):
    settings = SETTINGS | {name.replace("__", "."): value for name, value in changes.items()}
    return workbench.Recipe.load("task_only_demo", settings)


def load(chosen):
    return load_dual_encoder(
        chosen.student.model,
        initial_weights=chosen.student.initial_weights,
        frozen=chosen.student.frozen,
        freeze_batch_norm=chosen.student.freeze_batch_norm,
    )


def test_training_is_the_same_with_layers_cached_and_without(tmp_path):
    cached = workbench.train(recipe(), tmp_path / "cached")
    plain = workbench.train(recipe(student__cache_frozen=False), tmp_path / "plain")
    assert cached.metrics["loss"].tolist() == plain.metrics["loss"].tolist()
    weights = [run.model().clip.state_dict() for run in (cached, plain)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_the_pairs_give_what_the_layers_make_of_their_pictures():
    chosen = recipe()
    student = load(chosen).eval()
    pairs = load_pairs("scenes", "train", scenes=48)
    mapped = mapped_pairs(chosen, pairs, student, say=None)
    assert mapped.ids == pairs.ids
    pictures = torch.stack([student.transform(pairs.image(row)) for row in (3, 17)])
    maps = torch.stack([mapped.image(row) for row in (3, 17)])
    assert maps.shape == (2, 32, 8, 8)
    torch.testing.assert_close(maps, frozen_maps(student, pictures), rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(
            student.encode_maps(maps), student.encode_image(pictures), rtol=1e-3, atol=1e-5
        )


def test_frozen_layers_that_are_not_the_first_are_refused():
    chosen = recipe(student__frozen=["visual.trunk.blocks.2"])
    with pytest.raises(SettingError, match=r"student\.cache_frozen.*not its first layers"):
        mapped_pairs(chosen, load_pairs("scenes", "train", scenes=48), load(chosen), say=None)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("training.augmentation.crop_scale", [0.9, 1.0]), ("objectives.mfd", 1.0), ("data.decoded", 64)],
)
def test_settings_under_which_pictures_change_are_refused(setting, value):
    with pytest.raises(SettingError, match=rf"{setting.split('.')[-1]}.*cache_frozen"):
        workbench.Recipe.load("fd_demo", {setting: value})


def test_frozen_statistics_stay_and_shifts_learn(tmp_path):
    run = workbench.train(recipe(training__lr=0.01), tmp_path / "run")
    before, after = load(recipe()).clip.state_dict(), run.model().clip.state_dict()
    statistics = [key for key in before if "running_" in key]
    assert statistics and all(torch.equal(before[key], after[key]) for key in statistics)
    shift = "visual.trunk.blocks.4.2.bn3.bias"
    assert not torch.equal(before[shift], after[shift])
    assert not load(recipe()).train().trains_batch_statistics  # so a gradient cache is exact
    assert np.isfinite(run.metrics["loss"]).all()
