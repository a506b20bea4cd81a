"""Targets: equal to the teacher's own embeddings, row by row; views are crops; a kill changes no byte."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from workbench.data.load import load_pairs
from workbench.errors import SettingError
from workbench.models.loading import load_dual_encoder
from workbench.models.transform import random_crop
from workbench.recipe import Recipe
from workbench.targets.image_text import compute_targets, load_teacher


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory):
    torch.manual_seed(3)
    return load_dual_encoder("demo_student").save(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def recipe(teacher_folder, tmp_path):
    def make(**changes):
        settings = {
            "name": "targets",
            "data": {"scenes": 30},
            "student": {"model": "demo_student"},
            "teacher": {"model": str(teacher_folder)},
            "targets": {"folder": str(tmp_path / "store"), "batch": 8},
            "training": {"augmentation": {"crop_scale": [0.5, 0.8]}},
        }
        return Recipe.from_settings(
            settings, {name.replace("__", "."): value for name, value in changes.items()}
        )

    return make


def expected(recipe, crop):
    """One at a time, as slowly as can be."""
    model = load_teacher(recipe).model
    pairs = load_pairs("scenes", "train", scenes=30)
    with torch.no_grad():
        views = [model.transform(pairs.image(row), crop(row))[None] for row in range(30)]
        images = torch.cat([model.encode_image(view) for view in views])
        texts = torch.cat([model.encode_text(model.tokenize([caption])) for caption in pairs.all_captions])
    return [torch.nn.functional.normalize(side, dim=1).numpy() for side in (images, texts)]


def test_targets_are_what_the_teacher_says(recipe):
    store = compute_targets(recipe(), say=None)
    image, text = expected(recipe(), lambda row: None)
    assert store.column("image").shape == (1, 30, 128) and store.column("image").dtype == np.float16
    np.testing.assert_allclose(store.column("image")[0], image, atol=1e-3)
    np.testing.assert_allclose(store.column("text"), text, atol=1e-3)


def test_views_are_the_crops_that_the_student_sees(recipe):
    store = compute_targets(recipe(targets__views=2), say=None)
    for view in range(2):
        image, _ = expected(recipe(), lambda row, view=view: random_crop(0, view, row, (0.5, 0.8)))
        np.testing.assert_allclose(store.column("image")[view], image, atol=1e-3)


def test_another_teacher_or_other_views_are_refused_with_both_fingerprints(recipe, tmp_path):
    compute_targets(recipe(), say=None)
    other = load_dual_encoder("demo_student").save(tmp_path / "other")
    with pytest.raises(SettingError, match=r"targets\.folder.*fingerprint.*teacher\.weights"):
        compute_targets(recipe(teacher__model=str(other)), say=None)
    with pytest.raises(SettingError, match=r"views"):
        compute_targets(recipe(targets__views=1), say=None)


def test_without_a_teacher_there_are_no_targets():
    with pytest.raises(SettingError, match="no teacher"):
        compute_targets(Recipe.load("task_only_demo"))


@pytest.mark.slow
def test_killed_while_filling_it_goes_on_to_the_same_bytes(recipe, tmp_path):
    recipe(data__scenes=120, targets__batch=4).save(tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "workbench", "embed", str(tmp_path / "recipe.yaml")]
    # With as many threads as this process has by now: products of another number differ in their last bits,
    # and by that a byte of float16 here and there.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    done = tmp_path / "store" / "progress" / "image.done"
    deadline = time.monotonic() + 240
    while not (done.is_file() and sum(done.read_bytes()) >= 5):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert 5 <= sum(done.read_bytes()) < 30, "it was killed too late to show anything"
    resumed = compute_targets(recipe(data__scenes=120, targets__batch=4), say=None)
    straight = compute_targets(
        recipe(data__scenes=120, targets__batch=4, targets__folder=str(tmp_path / "straight")), say=None
    )
    for name in ("image", "text"):
        assert (resumed.folder / f"{name}.npy").read_bytes() == (straight.folder / f"{name}.npy").read_bytes()
