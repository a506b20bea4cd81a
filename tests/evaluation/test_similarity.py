import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu, wasserstein_distance
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from workbench.evaluation import (
    effective_rank,
    mean_cosine,
    modality_gap,
    pca_floor,
    readout_r2,
    readout_r2_interval,
    similarity_distributions,
)


def cloud(rows: int = 200, dim: int = 7) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.normal(size=(rows, dim)) @ generator.normal(size=(dim, dim)) + 5


@pytest.mark.parametrize("dim", [1, 3, 7, 20])
def test_the_floor_is_what_principal_components_explain(dim: int) -> None:
    target = cloud()
    explained = PCA().fit(target).explained_variance_ratio_[:dim].sum()
    assert pca_floor(target, dim) == pytest.approx(explained, rel=1e-10)
    assert pca_floor(torch.from_numpy(target).float(), dim) == pytest.approx(explained, rel=1e-5)


def test_no_regression_beats_the_floor_and_the_best_reaches_it() -> None:
    target = cloud()
    best = PCA(2).fit_transform(target)
    r2 = LinearRegression().fit(best, target).score
    error = np.square(target - LinearRegression().fit(best, target).predict(best)).sum()
    assert 1 - error / np.square(target - target.mean(0)).sum() == pytest.approx(pca_floor(target, 2))
    assert r2(best, target) <= 1
    other = np.random.default_rng(1).normal(size=(200, 2))
    error = np.square(target - LinearRegression().fit(other, target).predict(other)).sum()
    assert 1 - error / np.square(target - target.mean(0)).sum() < pca_floor(target, 2)


def test_extremes_of_the_floor() -> None:
    assert pca_floor(np.ones((4, 3)), 1) == 1  # a bias predicts it
    assert pca_floor(cloud(), 0) == 0
    assert pca_floor(cloud(3, 7), 2) == pytest.approx(1)  # three rows span two directions
    far = torch.from_numpy(cloud()).float() + 1e4
    assert pca_floor(far, 3) == pytest.approx(pca_floor(cloud(), 3), abs=1e-5)
    for target in (np.ones((0, 3)), np.ones(3), np.full((3, 3), np.inf)):
        with pytest.raises(ValueError, match=r"target|finite"):
            pca_floor(target, 1)


def test_distributions_of_matching_and_other_pairs() -> None:
    generator = np.random.default_rng(0)
    left = generator.normal(size=(60, 4))
    right = left + 0.5 * generator.normal(size=(60, 4))
    result = similarity_distributions(left, right, pairs=500, seed=3)
    units = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in (left, right)]
    np.testing.assert_allclose(result.matching, (units[0] * units[1]).sum(1))
    every = units[0] @ units[1].T
    assert all(np.isclose(every, value).any() for value in result.others[:20])
    assert 450 < len(result.others) < 500  # those drawn twice the same row are left out
    assert result.area == pytest.approx(wasserstein_distance(result.matching, result.others))
    u = mannwhitneyu(result.others, result.matching).statistic / (len(result.others) * 60)
    assert result.overlap == pytest.approx(u)


def test_rows_of_one_group_belong_together() -> None:
    left = np.eye(4)[[0, 0, 1, 1]]
    result = similarity_distributions(left, left, groups=np.array([0, 0, 1, 1]), pairs=200)
    assert result.others.max() == 0 and result.matching.min() == pytest.approx(1) and result.overlap == 0
    same = similarity_distributions(np.ones((5, 3)), np.ones((5, 3)))
    assert same.area == pytest.approx(0) and same.overlap == pytest.approx(0.5)
    with pytest.raises(ValueError, match="two groups"):
        similarity_distributions(left, left, groups=np.zeros(4))
    with pytest.raises(ValueError, match="same number of rows"):
        similarity_distributions(left, left[:3])


def test_effective_rank() -> None:
    ring = np.concatenate([np.eye(3), -np.eye(3)])
    assert effective_rank(ring + 100) == pytest.approx(3)
    assert effective_rank(np.outer(np.arange(5.0), [1, 2, 3])) == pytest.approx(1)
    assert effective_rank(np.ones((5, 3))) == 0


def test_mean_cosine_of_every_two_rows() -> None:
    rows = cloud(20)
    for centred in (False, True):
        moved = rows - rows.mean(0) if centred else rows
        units = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        cosines = (units @ units.T)[~np.eye(20, dtype=bool)]
        assert mean_cosine(rows, centred) == pytest.approx(cosines.mean())
    assert mean_cosine(rows) > mean_cosine(rows, centred=True)
    assert np.isnan(mean_cosine(rows[:1]))


def test_a_linear_map_is_read_off_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    source, held_out = rng.normal(size=(400, 6)) + 3, rng.normal(size=(200, 6)) + 3
    weights = rng.normal(size=(6, 9))
    assert readout_r2(source, source @ weights - 5, held_out, held_out @ weights - 5) == pytest.approx(
        1, abs=1e-4
    )
    noise, held_noise = rng.normal(size=(400, 9)), rng.normal(size=(200, 9))
    model = LinearRegression().fit(source, noise)
    expected = r2_score(held_noise, model.predict(held_out), multioutput="variance_weighted")
    assert readout_r2(source, noise, held_out, held_noise) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ValueError, match="400 sources and 200 targets"):
        readout_r2(source, held_noise, held_out, held_noise)


def test_the_modality_gap_is_the_distance_of_the_means() -> None:
    images, texts = torch.tensor([[3.0, 0], [5, 0]]), torch.tensor([[0.0, 2], [0, 1], [0, 7]])
    assert modality_gap(images, texts) == pytest.approx((2**0.5, 0))
    generator = np.random.default_rng(0)
    mixed = generator.normal(size=(2, 2000, 4))
    gap = modality_gap(*mixed)
    assert gap.gap < 0.1 and gap.chance < 0.1
    with pytest.raises(ValueError, match="1 captions"):
        modality_gap(images, texts[:1])


def test_the_interval_of_r2_resamples_pictures() -> None:
    generator = np.random.default_rng(0)
    source = generator.normal(size=(300, 4))
    target = source @ generator.normal(size=(4, 3)) + generator.normal(size=(300, 3))
    sides = source[:200], target[:200], source[200:], target[200:]
    interval = readout_r2_interval(*sides, np.arange(100) // 2)
    assert interval.mean == pytest.approx(readout_r2(*sides)) and interval.n == 50
    assert interval.low < interval.mean < interval.high < 1
    twice = [np.concatenate([side, side]) for side in sides[2:]]  # copies of a picture tell nothing new
    copied = readout_r2_interval(*sides[:2], *twice, np.tile(np.arange(100) // 2, 2))
    assert copied.high - copied.low == pytest.approx(interval.high - interval.low, rel=1e-6)
