import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from workbench.targets import clusterers
from workbench.targets.clusterers import drawn, gaussian_mixture, kmeans, unit


def test_kmeans_is_as_good_as_scikit_learns() -> None:
    points = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    ours = kmeans(points, 40, iterations=30, spherical=False, random_start=True)
    inertia = np.square(points[:, None] - ours).sum(-1).min(1).sum()
    theirs = KMeans(40, init="random", n_init=1, max_iter=30, tol=0, random_state=0).fit(points).inertia_
    assert inertia == pytest.approx(theirs, rel=0.02)
    np.testing.assert_allclose(np.linalg.norm(kmeans(points, 5), axis=1), 1, rtol=1e-5)


def test_kmeans_takes_float32_points_as_they_are(monkeypatch) -> None:
    """Half a million points must not be held twice."""
    import faiss

    points = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    given = []
    train = faiss.Kmeans.train

    def noted(self, x):
        given.append(x)
        return train(self, x)

    monkeypatch.setattr(faiss.Kmeans, "train", noted)
    kmeans(points, 4)
    assert np.shares_memory(given[0], points)


def test_a_mixture_sees_so_many_points(monkeypatch) -> None:
    points = unit(np.random.default_rng(0).normal(size=(400, 3))).astype(np.float32)
    seen = []
    fit = GaussianMixture.fit_predict

    def noted(self, some):
        seen.append(len(some))
        return fit(self, some)

    monkeypatch.setattr(GaussianMixture, "fit_predict", noted)
    monkeypatch.setattr(clusterers, "MIXTURE", 150)
    result = gaussian_mixture(points, 4, 0)
    assert seen == [150] and result.shape == (4, 3)
    assert len(gaussian_mixture(points, 160, 0)) <= 160 and seen[1] == 160  # a point for every cluster


def test_rows_are_drawn_by_seed_in_their_order() -> None:
    rows = np.arange(100)[:, None]
    some, same, other = drawn(rows, 30, 0), drawn(rows, 30, 0), drawn(rows, 30, 1)
    np.testing.assert_array_equal(some, same)
    assert len(np.unique(some)) == 30 and (np.diff(some[:, 0]) > 0).all()
    assert not np.array_equal(some, other)
    np.testing.assert_array_equal(drawn(rows, 1000, 0), rows)


def test_unit_rows() -> None:
    rows = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(unit(rows), [[0.6, 0.8], [0, 0]])
