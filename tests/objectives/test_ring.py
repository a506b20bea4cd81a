"""Losses whose embeddings pass from process to process: values, gradients, memory and what they refuse."""

import subprocess
import sys
from pathlib import Path

import pytest

from workbench.errors import SettingError
from workbench.recipe import Recipe

SCRIPT = str(Path(__file__).with_name("ring_of_rank.py"))


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_values_and_gradients_are_those_of_the_whole_batch(processes: int) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    done = subprocess.run(
        [*command, str(processes), SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_a_ring_cannot_do_is_refused_before_anything_runs() -> None:
    with pytest.raises(SettingError, match="loss_ring") as refusal:
        Recipe.load("clip_kd_demo", {"training.loss_ring": True, "objectives.gd": 1.0})
    assert "objectives.gd=0" in refusal.value.remedy
    with pytest.raises(SettingError, match="direction_weights"):
        Recipe.load("task_only_demo", {"training.loss_ring": True, "training.direction_weights": [0.3, 0.7]})


def test_how_embeddings_travel_changes_no_fingerprint() -> None:
    recipe = Recipe.load("task_only_demo")
    assert Recipe.load("task_only_demo", {"training.loss_ring": True}).fingerprint == recipe.fingerprint
