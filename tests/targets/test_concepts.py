import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from workbench.targets import Concepts, fit_concepts, soft_labels
from workbench.targets import concepts as concepts_module
from workbench.targets.concepts import CLUSTERERS


def blobs(each: int = 60, clusters: int = 6, dim: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    centres = 6 * np.random.default_rng(9).normal(size=(clusters, dim))
    truth = np.repeat(np.arange(clusters), each)
    return (centres[truth] + generator.normal(size=(len(truth), dim))).astype(np.float32), truth


def slow_labels(z: np.ndarray, mu: np.ndarray, temperature: float) -> np.ndarray:
    rows = []
    for row in z.astype(float):
        weights = [np.exp(-float(((row - centre) ** 2).sum()) / temperature) for centre in mu.astype(float)]
        rows.append([weight / sum(weights) for weight in weights])
    return np.array(rows)


def perplexity(labels: np.ndarray) -> np.ndarray:
    labels = np.asarray(labels, dtype=np.float64)
    return np.exp(-(labels * np.log(np.maximum(labels, 1e-300))).sum(1))


def test_soft_labels_equal_a_slow_version() -> None:
    z, mu = np.random.default_rng(0).normal(size=(7, 3)), np.random.default_rng(1).normal(size=(5, 3))
    result = soft_labels(z, mu, temperature=0.8)
    np.testing.assert_allclose(result, slow_labels(z, mu, 0.8), rtol=1e-10)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (z, mu)]
    cosine = soft_labels(z, mu, temperature=0.8, metric="cosine")
    np.testing.assert_allclose(cosine, slow_labels(*unit, 1.6), rtol=1e-10)  # 1 - cos is half the distance


def test_portions_do_not_change_soft_labels(monkeypatch) -> None:
    z, mu = np.random.default_rng(0).normal(size=(50, 3)), np.random.default_rng(1).normal(size=(9, 3))
    whole = soft_labels(z, mu, temperature=0.8), soft_labels(z, mu), soft_labels(z, mu, metric="cosine")
    monkeypatch.setattr(concepts_module, "ROWS", 7)
    parts = soft_labels(z, mu, temperature=0.8), soft_labels(z, mu), soft_labels(z, mu, metric="cosine")
    for one, other in zip(parts, whole, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)


def test_soft_labels_hold_little_beyond_the_result(monkeypatch) -> None:
    monkeypatch.setattr(concepts_module, "ROWS", 500)
    monkeypatch.setattr(concepts_module, "SAMPLE", 500)
    rng = np.random.default_rng(0)
    z, mu = rng.normal(size=(20_000, 4)).astype(np.float32), rng.normal(size=(100, 4)).astype(np.float32)
    soft_labels(z[:500], mu)  # imports and caches, once
    tracemalloc.start()
    labels = soft_labels(z, mu)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.4 * labels.nbytes
    # The temperature comes from 500 of the rows.
    assert perplexity(labels).mean() == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize("wanted", [1.5, 4.0, 9.0])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
def test_the_temperature_gives_the_perplexity(wanted: float, metric: str, factor: float) -> None:
    z = factor * np.random.default_rng(0).normal(size=(200, 8))
    mu = factor * np.random.default_rng(1).normal(size=(20, 8))
    labels = soft_labels(z, mu, perplexity=wanted, metric=metric)
    np.testing.assert_allclose(labels.sum(1), 1)
    assert perplexity(labels).mean() == pytest.approx(wanted, rel=1e-4)


def test_far_off_float32_embeddings_keep_their_labels() -> None:
    z = np.random.default_rng(0).integers(-8, 8, size=(50, 4)).astype(np.float32)
    mu = np.random.default_rng(1).integers(-8, 8, size=(6, 4)).astype(np.float32)
    near, far = soft_labels(z, mu), soft_labels(z + np.float32(2**20), mu + np.float32(2**20))
    np.testing.assert_allclose(far, near, rtol=1e-5, atol=1e-7)


def test_the_kind_that_comes_in_goes_out() -> None:
    z, mu = torch.randn(9, 3), torch.randn(6, 3)
    assert isinstance(soft_labels(z, mu), torch.Tensor) and soft_labels(z.double(), mu).dtype == torch.float64
    assert soft_labels(z.numpy(), mu.numpy()).dtype == np.float32
    np.testing.assert_array_equal(soft_labels(z, mu[:1]), np.ones((9, 1)))  # nothing to choose from
    assert soft_labels(z[:0], mu).shape == (0, 6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"perplexity": 6.0}, "perplexity = 6.0: 6 clusters allow above 1 and below 6"),
        ({"perplexity": 1.0}, "perplexity = 1.0"),
        ({"temperature": 0.0}, "temperature = 0.0"),
        ({"metric": "manhattan"}, "metric = 'manhattan': euclidean or cosine"),
    ],
)
def test_unusable_softness(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        soft_labels(np.ones((4, 3)), np.eye(6, 3), **arguments)
    with pytest.raises(ValueError, match=r"\(4, 3\) and centroids \(6, 2\)"):
        soft_labels(np.ones((4, 3)), np.ones((6, 2)))


@pytest.mark.parametrize("method", CLUSTERERS)
def test_every_clusterer_finds_blobs_and_places_unseen_captions(method: str, tmp_path) -> None:
    raw, truth = blobs()
    concepts = fit_concepts(raw, 6, method=method, reduce=5, perplexity=1.5)
    assert concepts.centroids.shape == (6, 5) and concepts.centroids.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(concepts.centroids, axis=1), 1, rtol=1e-5)
    assert adjusted_rand_score(truth, concepts.assign(raw)) > 0.95
    unseen, their_truth = blobs(seed=1)
    assert adjusted_rand_score(their_truth, concepts.assign(unseen)) > 0.95
    concepts.save(tmp_path / "concepts.npz")
    again = Concepts.load(tmp_path / "concepts.npz")
    np.testing.assert_array_equal(again.assign(unseen), concepts.assign(unseen))
    for one, other in zip(again.soft_labels(unseen), concepts.soft_labels(unseen), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_same_seed_finds_the_same_concepts() -> None:
    raw, _ = blobs(clusters=20)
    one, same, other = (fit_concepts(raw, 8, reduce=6, seed=seed).centroids for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_sparse_labels_are_the_largest_of_the_dense() -> None:
    raw, _ = blobs(clusters=30, each=20)
    concepts = fit_concepts(raw, 24, reduce=8)
    dense = soft_labels(concepts.space(raw), concepts.centroids, concepts.temperature)
    assert perplexity(dense).mean() == pytest.approx(4.0, rel=1e-3)
    sparse = concepts.soft_labels(raw, top=5)
    assert sparse.indices.shape == (600, 5) and sparse.indices.dtype == np.int32
    for row in range(0, 600, 37):
        best = np.sort(dense[row])[::-1][:5]
        np.testing.assert_allclose(sparse.values[row], best / best.sum(), rtol=1e-5)
        np.testing.assert_allclose(dense[row][sparse.indices[row]], best, rtol=1e-6)
    filled = concepts.soft_labels(raw).dense(24)
    np.testing.assert_allclose(filled.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(filled.argmax(1), concepts.assign(raw))


def test_the_temperature_comes_from_captions_drawn_anywhere(monkeypatch) -> None:
    """Captions often come in the same order for every picture: every n-th might be all of one kind."""
    raw = blobs(each=200)[0]
    raw = raw[np.argsort(np.tile(np.arange(200), 6), kind="stable")]  # every sixth is of the same blob
    monkeypatch.setattr(concepts_module, "SAMPLE", 200)
    seen = []
    find = concepts_module.find_temperature

    def noted(distances: np.ndarray, wanted: float) -> float:
        seen.append(distances)
        return find(distances, wanted)

    monkeypatch.setattr(concepts_module, "find_temperature", noted)
    concepts = fit_concepts(raw, 6, reduce=5, perplexity=1.5)
    assert seen[0].shape == (200, 6)
    assert np.bincount(seen[0].argmin(1), minlength=6).min() > 15
    assert perplexity(concepts.soft_labels(raw).dense(6)).mean() == pytest.approx(1.5, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64])
def test_labels_of_tensors_of_any_kind(dtype: torch.dtype) -> None:
    z, mu = torch.tensor([[0.0, 1.0], [3.0, 3.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [3.0, 3.0]])
    given = z.to(dtype, copy=True)
    result = soft_labels(given.requires_grad_() if dtype.is_floating_point else given, mu, temperature=2)
    assert result.dtype == (dtype if dtype.is_floating_point else torch.float64) and not result.requires_grad
    expected = soft_labels(z.numpy(), mu.numpy(), temperature=2)
    np.testing.assert_allclose(result.double().numpy(), expected, atol=0.01 if dtype.itemsize < 4 else 1e-6)


def test_a_centroid_without_direction_is_at_cosine_0() -> None:
    z, mu = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    expected = np.exp([0.0, -1.0, -2.0]) / np.exp([0.0, -1.0, -2.0]).sum()
    np.testing.assert_allclose(soft_labels(z, mu, temperature=1.0, metric="cosine")[0], expected, rtol=1e-12)


def test_no_labels_of_what_is_not_finite() -> None:
    z, mu = np.ones((3, 2)), np.eye(2)
    z[1, 0] = np.nan
    with pytest.raises(ValueError, match="embeddings: they hold NaN or infinity"):
        soft_labels(z, mu, perplexity=1.5)
    with pytest.raises(ValueError, match="centroids: they hold NaN"):
        soft_labels(mu, np.array([[np.inf, 0.0], [0.0, 1.0]]))


def test_no_captions_have_no_labels() -> None:
    raw, _ = blobs()
    concepts = fit_concepts(raw, 6, perplexity=2.0)
    assert concepts.assign(raw[:0]).shape == (0,) and concepts.soft_labels(raw[:0]).indices.shape == (0, 6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"clusters": 361}, "concepts.clusters = 361: there are 360 captions"),
        ({"clusters": 1}, "concepts.clusters = 1"),
        ({"clusters": 4, "reduce": 0}, "concepts.reduce = 0: no axis is left"),
        ({"clusters": 4, "perplexity": 4.0}, "concepts.perplexity = 4.0: there are 4 concepts"),
        ({"clusters": 8, "method": "spectral"}, "concepts.method = .*spectral.*kmeans, gaussian_mixture"),
    ],
)
def test_numbers_that_the_data_cannot_give(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_concepts(blobs()[0], **arguments)


def test_embeddings_that_are_all_equal_have_no_concepts() -> None:
    with pytest.raises(ValueError, match="all 9 embeddings are equal"):
        fit_concepts(np.ones((9, 4)), 2, perplexity=1.5)
