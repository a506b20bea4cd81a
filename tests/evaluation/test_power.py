"""How many seeds and pictures an effect needs: against simulated experiments of that size."""

import numpy as np
import pytest

from workbench.evaluation.power import Variation, pictures_needed, seeds_needed
from workbench.evaluation.significance import crossed_interval

VARIATION = Variation(seeds=0.01**2, pictures=0.3**2, rest=0.2**2)


def differences(seeds, pictures, random, effect=0.0):
    parts = [
        scale**0.5 * random.normal(size=shape)
        for scale, shape in (
            (VARIATION.seeds, (seeds, 1)),
            (VARIATION.pictures, (1, pictures)),
            (VARIATION.rest, (seeds, pictures)),
        )
    ]
    return effect + sum(parts)


def test_four_of_five_experiments_see_the_detectable_effect():
    random = np.random.default_rng(0)
    effect = VARIATION.detectable(5, 400)
    nothing = np.zeros((5, 400))
    seen = [crossed_interval(differences(5, 400, random, effect), nothing).low > 0 for _ in range(400)]
    assert np.mean(seen) == pytest.approx(0.8, abs=0.06)


def test_what_is_needed_is_the_least_that_is_enough():
    seeds = seeds_needed(0.05, 400, VARIATION)
    assert VARIATION.detectable(seeds, 400) <= 0.05 < VARIATION.detectable(seeds - 1, 400)
    pictures = pictures_needed(0.05, 5, VARIATION)
    assert VARIATION.detectable(5, pictures) <= 0.05 < VARIATION.detectable(5, pictures - 1)


def test_some_effects_are_out_of_reach():
    assert seeds_needed(0.01, 100, VARIATION) is None  # pictures alone vary by more
    assert pictures_needed(0.01, 3, VARIATION) is None  # seeds alone do


def test_the_variation_is_found_again():
    random = np.random.default_rng(1)
    estimates = [
        Variation.of(crossed_interval(differences(6, 300, random), np.zeros((6, 300))).components, 6, 300)
        for _ in range(200)
    ]
    for name in ("seeds", "pictures", "rest"):
        mean = np.mean([getattr(estimate, name) for estimate in estimates])
        assert mean == pytest.approx(getattr(VARIATION, name), rel=0.25), name


def test_sides_of_unequal_seeds_count_as_their_harmonic_mean():
    random = np.random.default_rng(2)
    estimates = []
    for _ in range(300):
        sides = [
            VARIATION.seeds**0.5 * random.normal(size=(seeds, 1)) + 0.001 * random.normal(size=(seeds, 200))
            for seeds in (2, 12)
        ]
        components = crossed_interval(*sides, paired=False).components
        estimates.append(Variation.of(components, 2 / (1 / 2 + 1 / 12), 200).seeds)
    assert np.mean(estimates) == pytest.approx(2 * VARIATION.seeds, rel=0.2)
