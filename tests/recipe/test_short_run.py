"""Short runs of the demo recipes."""

import os

import pytest

from workbench.recipe import Recipe
from workbench.recipe.short_run import short_run


def test_a_short_run_is_a_recipe_at_a_fraction_of_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    recipe = Recipe.load("clip_kd_demo", short_run(40, 64, seed=3, scenes=1000, validations=4, at_once=2))
    training = recipe.training
    assert (training.steps, training.batch, training.warmup_steps, training.validate_every) == (40, 64, 5, 10)
    assert (recipe.seed, recipe.data.scenes, training.threads) == (3, 1000, 4)


def test_the_shortest_run_is_a_recipe_too() -> None:
    usual = Recipe.load("clip_kd_demo")
    recipe = Recipe.load("clip_kd_demo", short_run(1, 2, validations=9, at_once=64))
    assert recipe.training.warmup_steps == recipe.training.validate_every == 1
    assert recipe.training.threads == 1 and recipe.data.scenes == usual.data.scenes
    assert Recipe.load("clip_kd_demo", short_run(1, 2)).training.threads == usual.training.threads
