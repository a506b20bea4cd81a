import numpy as np
import pytest
from sklearn.metrics import davies_bouldin_score, silhouette_score

from workbench.evaluation.clusters import (
    agreement,
    concept_health,
    gini,
    perplexities,
    stability,
)


def test_health_is_scikit_learns_on_all_points() -> None:
    points = np.random.default_rng(0).normal(size=(60, 3))
    labels = np.arange(60) % 4
    soft = np.full((60, 3), 1 / 3)
    found = concept_health(points, labels, 6, soft)
    assert found.silhouette == pytest.approx(silhouette_score(points, labels))
    assert found.davies_bouldin == pytest.approx(davies_bouldin_score(points, labels))
    assert found.non_empty == 4 and found.perplexity == pytest.approx(3)
    assert found.size_gini == pytest.approx(1 / 3)  # two of six are empty
    assert concept_health(points, labels, 4).perplexity == 1
    sampled = concept_health(points, labels, 4, sample=20, seed=1)
    assert sampled.silhouette != found.silhouette and sampled.size_gini == 0
    assert np.isnan(concept_health(points, np.zeros(60, dtype=np.int64), 1).silhouette)
    for wrong in (labels + 4, labels - 1):
        with pytest.raises(ValueError, match="0 to 3"):
            concept_health(points, wrong, 4)


def test_gini_is_the_mean_difference() -> None:
    sizes = np.array([1, 5, 0, 2, 2])
    differences = np.abs(sizes[:, None] - sizes).mean()
    assert gini(sizes) == pytest.approx(differences / (2 * sizes.mean()))
    assert gini(np.array([7, 7])) == 0 and gini(np.zeros(3)) == 0


def test_perplexities() -> None:
    rows = np.array([[0.5, 0.5, 0], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])
    np.testing.assert_allclose(perplexities(rows), [2, 1, 3])


def test_agreement_with_classes() -> None:
    labels = np.array([0, 0, 0, 1, 1, 3])
    classes = np.array(["cat", "cat", "dog", "dog", "dog", "cat"])
    found = agreement(labels, classes)
    assert found.purity == pytest.approx(5 / 6)
    perfect = agreement(np.array([2, 2, 0]), np.array(["a", "a", "b"]))
    assert perfect == pytest.approx((1, 1, 1))
    assert agreement(np.zeros(4, dtype=np.int64), np.array(list("abab"))).nmi == 0
    with pytest.raises(ValueError, match="6 labels and 2 classes"):
        agreement(labels, classes[:2])


def test_stability_does_not_mind_names() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert stability(labels, (labels + 1) % 3) == pytest.approx(1)
    assert stability(labels, np.array([0, 1, 2, 0, 1, 2])) < 0.01
