"""Clusterers: points [n, dim] in, centroids [clusters, dim] of unit length out."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from workbench.errors import SettingError

MIXTURE = 100_000  # rows that a Gaussian mixture is given: it holds n x clusters numbers several times
PAIRWISE = 8_000  # rows that clusterers which compare all with all are given


def kmeans(
    points: Float[np.ndarray, "n dim"],
    clusters: int,
    *,
    iterations: int = 25,
    spherical: bool = True,
    random_start: bool = False,
    seed: int = 0,
) -> Float[np.ndarray, "clusters dim"]:
    """Centroids by faiss over all points (alone it would draw 256 a cluster), from k-means++ or a random
    start; of any length where not `spherical`."""
    import faiss

    points = np.ascontiguousarray(points, dtype=np.float32)
    methods = faiss.ClusteringInitMethod_RANDOM, faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS
    clusterer = faiss.Kmeans(
        points.shape[1],
        clusters,
        niter=iterations,
        init_method=methods[not random_start],
        spherical=spherical,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
    )
    clusterer.train(points)
    return np.asarray(clusterer.centroids)


def gaussian_mixture(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Means, on the unit sphere, of what components of diagonal covariance claim of up to 100,000 points."""
    from sklearn.mixture import GaussianMixture

    some = drawn(points, max(MIXTURE, clusters), seed)
    start = kmeans(some, clusters, iterations=5, seed=seed)
    mixture = GaussianMixture(
        clusters,
        covariance_type="diag",
        means_init=start,
        max_iter=20,
        tol=1e-2,
        reg_covar=1e-4,
        random_state=seed,
    )
    return _centroids(some, _quietly(mixture.fit_predict, some))


def agglomerative(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Means, on the unit sphere, of the clusters that Ward's method makes of up to 8,000 points."""
    from sklearn.cluster import AgglomerativeClustering

    some = drawn(points, max(PAIRWISE, clusters), seed)
    return _centroids(some, AgglomerativeClustering(clusters).fit_predict(some))


def hdbscan(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Means, on the unit sphere, of the dense regions among up to 8,000 points, as many as there are.

    Raises SettingError where there are fewer than two.
    """
    from sklearn.cluster import HDBSCAN

    some = drawn(points, max(PAIRWISE, clusters), seed)
    smallest = max(2, len(some) // (4 * clusters))
    labels = HDBSCAN(min_cluster_size=smallest, min_samples=2, copy=True).fit_predict(some)
    clustered = labels >= 0  # the rest is noise
    if len(np.unique(labels[clustered])) < 2:
        problem = "hdbscan finds fewer than two clusters in these captions"
        raise SettingError("concepts.method", "hdbscan", problem, "kmeans, or more concepts.clusters")
    return _centroids(some[clustered], labels[clustered])


def _centroids(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    means = np.stack([points[labels == label].mean(0) for label in np.unique(labels)])
    return unit(means).astype(np.float32)


def _quietly(fit: Callable[[np.ndarray], Any], points: np.ndarray) -> Any:
    """Without the warning that a mixture could have improved a little more."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit(points)


def drawn(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most `count` of the rows, in their order."""
    return points[np.sort(np.random.default_rng(seed).permutation(len(points))[:count])]


def unit(rows: np.ndarray) -> np.ndarray:
    """The rows at length 1; those of length 0 as they are."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
