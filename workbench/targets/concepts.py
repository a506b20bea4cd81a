"""Concepts: clusters of caption embeddings, and the soft labels that captions get from them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from workbench.errors import SettingError, damaged_file
from workbench.files import atomic_write, read_arrays
from workbench.targets.clusterers import agglomerative, drawn, gaussian_mixture, hdbscan, kmeans, unit
from workbench.targets.standardise import moments

TOP = 16  # labels that are kept of each caption
ROWS = 8192  # at a time
SAMPLE = 20_000  # rows from which the temperature is found

CLUSTERERS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "kmeans": lambda points, clusters, seed: kmeans(points, clusters, seed=seed),
    "gaussian_mixture": gaussian_mixture,
    "agglomerative": agglomerative,
    "hdbscan": hdbscan,
}


class Sparse(NamedTuple):
    """Labels of n captions: the concepts [n, top] and their probabilities [n, top], which sum to 1."""

    indices: Int[np.ndarray, "n top"]
    values: Float[np.ndarray, "n top"]

    def dense(self, clusters: int) -> Float[np.ndarray, "n clusters"]:
        """The same with every concept, float32."""
        labels = np.zeros((len(self.indices), clusters), dtype=np.float32)
        np.put_along_axis(labels, self.indices.astype(np.int64), self.values.astype(np.float32), axis=1)
        return labels


class Concepts:
    """Centroids [clusters, dim'] in the space they were found in, and how embeddings get there.

    That space: minus the training captions' mean, turned to their first principal axes, to length 1. New
    captions get the nearest centroids; nothing is fitted again.
    """

    def __init__(self, mean: np.ndarray, axes: np.ndarray, centroids: np.ndarray, temperature: float) -> None:
        self.mean = mean
        self.axes = axes
        self.centroids = centroids
        self.temperature = temperature

    @property
    def digest(self) -> str:
        """What determines their labels, as one hash."""
        parts = (self.mean, self.axes, self.centroids, np.float64(self.temperature))
        digest = hashlib.sha256()
        for part in parts:
            digest.update(f"{part.dtype}{part.shape}".encode() + part.tobytes())
        return digest.hexdigest()

    def space(self, embeddings: np.ndarray) -> Float[np.ndarray, "n reduced"]:
        """Embeddings [n, dim] in the centroids' space, float32 of length 1."""
        return _space(embeddings, self.mean, self.axes)

    def assign(self, embeddings: np.ndarray) -> Int[np.ndarray, " n"]:
        """The nearest concept of each embedding."""
        parts = [
            _squared_distances(self.space(rows), self.centroids).argmin(1) for rows in _portions(embeddings)
        ]
        return np.concatenate([np.empty(0, dtype=np.int64), *parts])

    def soft_labels(self, embeddings: np.ndarray, top: int = TOP) -> Sparse:
        """softmax_k(-||z - mu_k||^2 / T), its `top` largest entries brought to sum 1 again."""
        top = min(top, len(self.centroids))
        indices, values = [np.empty((0, top), np.int32)], [np.empty((0, top), np.float32)]
        for rows in _portions(embeddings):
            labels = _softmax(_squared_distances(self.space(rows), self.centroids), self.temperature)
            best = np.argsort(-labels, axis=1, kind="stable")[:, :top]
            kept = np.take_along_axis(labels, best, 1)
            indices.append(best.astype(np.int32))
            values.append((kept / kept.sum(1, keepdims=True)).astype(np.float32))
        return Sparse(np.concatenate(indices), np.concatenate(values))

    def save(self, path: str | Path) -> None:
        """Write them as .npz, whole or not at all."""
        with atomic_write(Path(path)) as stream:
            np.savez(
                stream,
                mean=self.mean,
                axes=self.axes,
                centroids=self.centroids,
                temperature=np.float64(self.temperature),
            )

    @classmethod
    def load(cls, path: str | Path) -> "Concepts":
        """What `save` wrote; SettingError where the file is damaged."""
        try:
            parts = read_arrays(Path(path))
            return cls(parts["mean"], parts["axes"], parts["centroids"], float(parts["temperature"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise damaged_file("run", path, error, "Delete it: it is fitted again.") from None


def fit_concepts(
    embeddings: np.ndarray,
    clusters: int,
    *,
    method: str = "kmeans",
    reduce: int = 64,
    perplexity: float = 4.0,
    seed: int = 0,
) -> Concepts:
    """Find `clusters` concepts among training embeddings [n, dim]: in their first `reduce` principal axes, on
    the unit sphere, by "kmeans" (spherical), "gaussian_mixture", "agglomerative" or "hdbscan".

    Every method ends in centroids, of unit length, and labels by distance from them; `perplexity` is the mean
    number of concepts a caption belongs to. "gaussian_mixture" has diagonal covariances and sees at most
    100,000 captions drawn by `seed`; "agglomerative" (Ward) and "hdbscan" see 8,000, and hdbscan finds a
    number of its own. Embeddings may be a memory map: they are read in portions.
    Raises SettingError for numbers that the data cannot give.
    """
    if not 2 <= clusters <= len(embeddings):
        problem = f"there are {len(embeddings)} captions"
        raise SettingError("concepts.clusters", clusters, problem, f"2 to {len(embeddings)}")
    if method not in CLUSTERERS:
        raise SettingError("concepts.method", method, "no such clusterer", f"one of {', '.join(CLUSTERERS)}")
    if reduce < 1:
        raise SettingError("concepts.reduce", reduce, "no axis is left", "1 or more, e.g. 64")
    mean, covariance = moments(embeddings)
    values, vectors = np.linalg.eigh(covariance)
    varying = int((values > max(float(values[-1]), 1e-300) * 1e-10).sum())
    if not values[-1] > 0:
        raise ValueError(f"all {len(embeddings)} embeddings are equal: there are no concepts among them")
    axes = vectors[:, : -min(reduce, varying) - 1 : -1]
    points = _space(embeddings, mean, axes)
    centroids = CLUSTERERS[method](points, clusters, seed)
    if not 1 < perplexity < len(centroids):
        problem = f"there are {len(centroids)} concepts"
        raise SettingError("concepts.perplexity", perplexity, problem, f"above 1, below {len(centroids)}")
    some = drawn(points, SAMPLE, seed)
    temperature = find_temperature(_squared_distances(some, centroids), perplexity)
    return Concepts(mean, axes, centroids, temperature)


def soft_labels(
    embeddings: Any,
    centroids: Any,
    temperature: float | None = None,
    perplexity: float = 4.0,
    metric: str = "euclidean",
) -> Any:
    """softmax_k(-d(z, mu_k) / T) of `embeddings` [n, dim] against `centroids` [clusters, dim]: [n, clusters].

    `metric`: d is the squared Euclidean distance, or 1 - cosine. `temperature` None: that with which the
    rows' mean perplexity (exp of the entropy) is `perplexity`, which must lie above 1 and below the number of
    clusters; of more than 20,000 rows, 20,000 are drawn for it. Distances are float64 from a common origin,
    so far-off embeddings lose no digits. Gives a tensor for tensors, else an array, in the embeddings' dtype.
    Raises ValueError for widths that differ or an unusable number. Knowledge-CLIP (Kao 2024), which
    leaves the softness open.
    """
    z, mu = _array(embeddings), _array(centroids)
    if z.ndim != 2 or mu.ndim != 2 or z.shape[1] != mu.shape[1] or not len(mu):
        raise ValueError(f"embeddings {z.shape} and centroids {mu.shape}: give [n, dim] and [clusters, dim]")
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric = {metric!r}: euclidean or cosine")
    if temperature is not None and not temperature > 0:
        raise ValueError(f"temperature = {temperature}: give a number above 0, or None")
    for name, values in (("embeddings", z), ("centroids", mu)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: they hold NaN or infinity, and labels from that are no numbers")

    def distances(rows: np.ndarray) -> np.ndarray:
        if metric == "cosine":
            return 1 - unit(rows) @ unit(mu).T
        return _squared_distances(rows, mu)

    if temperature is None and len(mu) > 1 and len(z):
        if not 1 < perplexity < len(mu):
            raise ValueError(
                f"perplexity = {perplexity}: {len(mu)} clusters allow above 1 and below {len(mu)}"
            )
        temperature = find_temperature(distances(drawn(z, SAMPLE, 0)), perplexity)
    labels = np.empty((len(z), len(mu)), z.dtype if np.issubdtype(z.dtype, np.floating) else np.float64)
    for start in range(0, len(z), ROWS):
        labels[start : start + ROWS] = _softmax(distances(z[start : start + ROWS]), temperature or 1.0)
    if not isinstance(embeddings, torch.Tensor):
        return labels
    dtype = embeddings.dtype if embeddings.dtype.is_floating_point else torch.float64
    return torch.from_numpy(labels).to(embeddings.device, dtype)


def _array(values: Any) -> np.ndarray:
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def find_temperature(distances: Float[np.ndarray, "n clusters"], perplexity: float) -> float:
    """T with which the mean over rows of the perplexity of softmax(-distances / T) is `perplexity`.

    Where no T reaches it (equal distances), the nearest that one does.
    """
    excess = distances - distances.min(1, keepdims=True)
    spread = float(excess.mean()) or 1.0
    low, high = np.log(spread) - 25, np.log(spread) + 25  # it rises with T
    for _ in range(60):
        middle = (low + high) / 2
        reached = _mean_perplexity(excess, float(np.exp(middle)))
        low, high = (middle, high) if reached < perplexity else (low, middle)
    return float(np.exp((low + high) / 2))


def _mean_perplexity(excess: np.ndarray, temperature: float) -> float:
    """Over the rows, of softmax(-excess / temperature): exp(entropy) = sum w exp(sum w e / sum w), where e is
    the exponent and w = exp(-e)."""
    total = 0.0
    for rows in _portions(excess):
        exponents = rows / temperature
        weights = np.exp(-exponents)
        sums = weights.sum(1)
        total += float((sums * np.exp((weights * exponents).sum(1) / sums)).sum())
    return total / len(excess)


def _portions(embeddings: np.ndarray) -> Any:
    return (embeddings[start : start + ROWS] for start in range(0, len(embeddings), ROWS))


def _space(embeddings: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    parts = [np.empty((0, axes.shape[1]), dtype=np.float32)]
    for rows in _portions(embeddings):
        parts.append(unit((np.asarray(rows, dtype=np.float64) - mean) @ axes).astype(np.float32))
    return np.concatenate(parts)


def _squared_distances(points: np.ndarray, centroids: np.ndarray) -> Float[np.ndarray, "n clusters"]:
    # Around the centroids' mean: |z|^2 - 2 z mu + |mu|^2 loses all digits far from the origin.
    origin = centroids.astype(np.float64).mean(0)
    z, mu = points.astype(np.float64) - origin, centroids.astype(np.float64) - origin
    squared = z @ mu.T
    squared *= -2
    squared += (z**2).sum(1, keepdims=True)
    squared += (mu**2).sum(1)
    return np.maximum(squared, 0, out=squared)


def _softmax(distances: np.ndarray, temperature: float) -> np.ndarray:
    from scipy.special import softmax

    return softmax((distances.min(1, keepdims=True) - distances) / temperature, axis=1)
