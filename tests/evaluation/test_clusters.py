import numpy as np
import pytest
from sklearn.metrics import davies_bouldin_score, silhouette_score

from workbench.evaluation.clusters import (
    agreement,
    concept_health,
    gini,
    kept_together,
    perplexities,
    stability,
    telling_words,
)


def test_health_is_scikit_learns_on_all_points() -> None:
    points = np.random.default_rng(0).normal(size=(60, 3))
    labels = np.arange(60) % 4
    soft = np.full((60, 3), 1 / 3)
    result = concept_health(points, labels, 6, soft)
    assert result.silhouette == pytest.approx(silhouette_score(points, labels))
    assert result.davies_bouldin == pytest.approx(davies_bouldin_score(points, labels))
    assert result.non_empty == 4 and result.perplexity == pytest.approx(3)
    assert result.size_gini == pytest.approx(1 / 3)  # two of six are empty
    assert concept_health(points, labels, 4).perplexity == 1
    sampled = concept_health(points, labels, 4, sample=20, seed=1)
    assert sampled.silhouette != result.silhouette and sampled.size_gini == 0
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
    result = agreement(labels, classes)
    assert result.purity == pytest.approx(5 / 6)
    perfect = agreement(np.array([2, 2, 0]), np.array(["a", "a", "b"]))
    assert perfect == pytest.approx((1, 1, 1))
    assert agreement(np.zeros(4, dtype=np.int64), np.array(list("abab"))).nmi == 0
    with pytest.raises(ValueError, match="6 labels and 2 classes"):
        agreement(labels, classes[:2])


def test_stability_does_not_mind_names() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert stability(labels, (labels + 1) % 3) == pytest.approx(1)
    assert stability(labels, np.array([0, 1, 2, 0, 1, 2])) < 0.01


def test_wordings_tear_the_captions_of_a_picture_apart() -> None:
    image = np.repeat(np.arange(4), 2)
    of_pictures, of_wordings = image.copy(), np.arange(8) % 2
    np.testing.assert_array_equal(kept_together(of_pictures, image), np.ones(4))
    np.testing.assert_array_equal(kept_together(of_wordings, image), np.zeros(2))
    labels = np.array([0, 0, 0, 1, 1, 1, 3, 3])  # picture 1 is torn apart, cluster 2 is empty
    np.testing.assert_allclose(kept_together(labels, 10 * image), [2 / 3, 2 / 3, np.nan, 1])
    assert np.isnan(kept_together(np.array([0, 0, 1]), np.arange(3))).all()


def test_clusters_are_named_by_what_is_theirs_alone() -> None:
    captions = [
        "a traffic light on red",
        "a traffic light on blue",
        "a dog on red",
        "the dog and a cat on blue",
    ]
    names = telling_words(captions, np.array([2, 2, 5, 5]))
    assert list(names) == [2, 5]
    assert names[2].startswith("traffic light") and names[5].startswith("dog")
    assert not {"a", "the", "and", "on"} & set(" ".join(names.values()).replace(",", "").split())
    alike = telling_words(["red dog"] * 4, np.array([0, 0, 1, 1]))
    assert len(set(alike.values())) == 2 and all("red dog" in name for name in alike.values())
    with pytest.raises(ValueError, match="4 captions and 1 labels"):
        telling_words(captions, np.zeros(1))
