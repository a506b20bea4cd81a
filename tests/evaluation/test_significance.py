import numpy as np
import pytest
import torch

from workbench.evaluation import bootstrap_interval, crossed_interval, paired_bootstrap


def test_mean_of_the_first_minus_mean_of_the_second() -> None:
    result = paired_bootstrap([1, 1, 0, 1], [0, 1, 0, 0], resamples=500)
    assert result.difference == 0.5
    assert 0 <= result.low < 0.5 < result.high <= 1
    assert (result.n, result.resamples) == (4, 500)
    turned = paired_bootstrap([0, 1, 0, 0], [1, 1, 0, 1], resamples=500)
    assert (turned.difference, turned.low, turned.high) == (-0.5, -result.high, -result.low)


def test_equals_slow_version() -> None:
    """The same draws one at a time: whole units, and the mean over all values drawn."""
    generator = np.random.default_rng(5)
    a, b = generator.normal(size=(2, 30))
    groups = generator.integers(0, 8, 30)
    groups[:8] = np.arange(8)
    result = paired_bootstrap(a, b, groups, resamples=400, seed=3)
    draws = np.random.default_rng(3).integers(0, 8, size=(400, 8))
    means = [np.mean(np.concatenate([(a - b)[groups == unit] for unit in drawn])) for drawn in draws]
    assert result.difference == pytest.approx(np.mean(a) - np.mean(b))
    assert (result.low, result.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    assert result.n == 8


def test_large_samples_follow_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(3, 2, size=4000)
    result = bootstrap_interval(values)
    error = values.std() / np.sqrt(4000)
    assert result.mean == pytest.approx(values.mean())
    assert result.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert result.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_captions_of_an_image_move_together() -> None:
    """Five copies of every value say no more than one: grouped, the interval is that of the single values."""
    single = (np.random.default_rng(0).random(200) < 0.4).astype(float)
    copies, image = np.repeat(single, 5), np.repeat(np.arange(200), 5)
    alone = bootstrap_interval(single)
    grouped = bootstrap_interval(copies, [f"image {n}" for n in image])
    loose = bootstrap_interval(copies)
    assert (grouped.mean, grouped.low, grouped.high, grouped.n) == pytest.approx(
        (alone.mean, alone.low, alone.high, 200)
    )
    assert (loose.high - loose.low) < 0.6 * (grouped.high - grouped.low)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Pairs that move together: 300 experiments with 60 pairs, true difference 0.2."""
    generator = np.random.default_rng(0)
    covered = 0
    for experiment in range(300):
        common = generator.normal(size=60)
        a, b = common + 0.2 + 0.5 * generator.normal(size=60), common + 0.5 * generator.normal(size=60)
        result = paired_bootstrap(a, b, resamples=400, seed=experiment)
        covered += result.low <= 0.2 <= result.high
    assert 0.90 <= covered / 300 <= 0.98


def test_excludes_zero() -> None:
    better = paired_bootstrap(np.arange(50) / 50 + 0.1, np.arange(50) / 50, resamples=200)
    assert better.excludes_zero and better.low == pytest.approx(0.1)
    worse = paired_bootstrap(np.zeros(50), np.ones(50), resamples=200)
    assert worse.excludes_zero and worse.difference == worse.high == -1
    assert not paired_bootstrap(np.ones(50), np.ones(50), resamples=200).excludes_zero
    assert not paired_bootstrap([1, 0] * 50, [0, 1] * 50, resamples=200).excludes_zero


def test_seed_decides() -> None:
    values = np.random.default_rng(0).random(100)
    first, again, other = (bootstrap_interval(values, resamples=300, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_blocks_cover_every_resample() -> None:
    """More values times resamples than are drawn at once, with groups of unequal size."""
    values = np.random.default_rng(0).random(20_000)
    result = bootstrap_interval(values, np.arange(20_000) // 7, resamples=1_000)
    assert result.low < result.mean < result.high
    assert result.high - result.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(20_000), rel=0.15)
    assert result.n == 2858


def test_one_unit_has_no_spread() -> None:
    result = bootstrap_interval([True, False], groups=["same", "same"], resamples=10)
    assert result.low == result.mean == result.high == 0.5
    assert result.n == 1


@pytest.mark.parametrize(
    "a, b, options, message",
    [
        ([1.0, 2.0], [1.0], {}, "differ in length, got 2 and 1"),
        ([], [], {}, "at least one number"),
        ([[1.0]], [[1.0]], {}, "shape"),
        ([1.0, np.nan], [1.0, 2.0], {}, "a holds 1 values that are not finite"),
        ([1.0, 2.0], [1.0, 2.0], {"groups": [0]}, "one group for each of 2 values"),
        ([1.0, 2.0], [1.0, 2.0], {"resamples": 0}, "resamples = 0"),
    ],
)
def test_bad_inputs(a: list, b: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(np.array(a), np.array(b), **options)


def test_tensors_and_arrays_alike() -> None:
    a, b, groups = torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 0.0, 1.0, 0.0]), [0, 0, 1, 2]
    assert paired_bootstrap(a, b, torch.tensor(groups)) == paired_bootstrap(a.numpy(), b.numpy(), groups)


def two_recipes(seeds, pictures, captions, spread, random):
    """Hits [S, N] of two recipes of one expectation; `spread` between seeds, as a share of hits."""
    difficulty = random.normal(0, 1, (1, pictures, 1)) + random.normal(0, 1, (1, pictures, captions))
    sides = []
    for _ in range(2):
        seed = random.normal(0, spread, (seeds, 1, 1))
        hits = difficulty + seed + random.normal(0, 1, (seeds, pictures, captions)) > 0.3
        sides.append(hits.reshape(seeds, -1).astype(float))
    return sides


@pytest.mark.parametrize("seeds", [3, 5])
def test_nineteen_of_twenty_crossed_intervals_hold_the_truth_where_seeds_vary(seeds):
    random = np.random.default_rng(seeds)
    groups = np.repeat(np.arange(150), 2)
    held, pictures_only = [], []
    for _ in range(500):
        a, b = two_recipes(seeds, 150, 2, 0.25, random)
        interval = crossed_interval(a, b, groups)
        held.append(interval.low <= 0 <= interval.high)
        resampled = paired_bootstrap(a.mean(0), b.mean(0), groups, resamples=200)
        pictures_only.append(resampled.low <= 0 <= resampled.high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)
    assert np.mean(pictures_only) < 0.9  # what it is for


def test_a_crossed_interval_by_hand():
    a = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    b = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    d = a - b
    seeds = d.mean(1).var(ddof=1) / 2
    pictures = d.mean(0).var(ddof=1) / 3
    rest = d - d.mean(1, keepdims=True) - d.mean(0) + d.mean()
    interaction = (rest**2).sum() / 2 / 6
    t = 12.7062  # of one degree of freedom
    half = (t**2 * seeds + 1.95996**2 * max(pictures - interaction, 0)) ** 0.5
    result = crossed_interval(a, b)
    assert result.difference == pytest.approx(d.mean()) and result.n == 3
    assert result.high - result.difference == pytest.approx(half, rel=1e-4)


def test_a_picture_of_many_captions_counts_for_as_many():
    a, b = np.array([[1.0, 1.0, 1.0, 0.0]] * 2), np.zeros((2, 4))
    result = crossed_interval(a, b, ["one", "one", "one", "other"])
    assert result.difference == 0.75 and result.n == 2
    assert result.components.seeds == result.components.interaction == 0


def test_a_start_is_a_side_without_seeds():
    random = np.random.default_rng(0)
    runs, start = random.random((3, 50)), random.random((1, 50))
    against = crossed_interval(runs, start, paired=False)
    assert against.components.freedom == pytest.approx(2)
    repeated = crossed_interval(runs, np.repeat(start, 3, 0))
    assert against.high == pytest.approx(repeated.high)


def test_independent_seeds_vary_more_than_shared_ones():
    random = np.random.default_rng(0)
    luck = random.normal(0, 1, (4, 1))
    a, b = luck + random.normal(0, 0.1, (4, 30)), luck + random.normal(0, 0.1, (4, 30))
    paired, apart = crossed_interval(a, b), crossed_interval(a, b, paired=False)
    assert paired.high - paired.low < 0.2 * (apart.high - apart.low)
    assert 3 <= apart.components.freedom <= 6  # Welch's


def test_crossed_sides_must_agree():
    with pytest.raises(ValueError, match="do not agree"):
        crossed_interval(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="do not agree"):
        crossed_interval(np.zeros((2, 3)), np.zeros((3, 3)))
