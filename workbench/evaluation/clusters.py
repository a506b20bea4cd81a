"""Concept clusters: shape, sizes, stability, agreement with known categories, and telling words."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Labels = Int[np.ndarray, " n"]
ARTICLES = {"a", "an", "the"}  # name nothing
# Stop words of scikit-learn that say much in a caption: places and things.
PLACES_AND_THINGS = {"back", "bottom", "fire", "front", "mill", "side", "top"}


class ConceptHealth(NamedTuple):
    """The quality of a clustering without known classes."""

    silhouette: float  # -1 to 1; 1 if all points are much closer to their own cluster than to the next
    davies_bouldin: float  # 0 or more, lower is better
    non_empty: int  # number of clusters with at least one point
    size_gini: float  # 0 for equal sizes, near 1 if one cluster has all points
    perplexity: float  # effective number of concepts in a soft label, mean over points


class Agreement(NamedTuple):
    """The agreement of clusters with known classes, without assigning clusters to classes."""

    nmi: float  # normalised mutual information, 0 to 1
    purity: float  # share of points in the majority class of their cluster; grows with the number of clusters
    ari: float  # adjusted Rand index, 0 for chance


def concept_health(
    points: Float[np.ndarray, "n dim"],
    labels: Labels,
    clusters: int,
    soft_values: Float[np.ndarray, "n top"] | None = None,
    *,
    sample: int = 5000,
    seed: int = 0,
) -> ConceptHealth:
    """Measure the quality of cluster `labels` (0 to `clusters` - 1) of `points`, with their `soft_values`.

    The silhouette (Euclidean) and Davies-Bouldin index use `sample` points drawn with `seed`, and are NaN if
    these lie in fewer than two clusters. The perplexity is 1 without soft labels. Raises ValueError for
    labels out of range.
    """
    from sklearn.metrics import davies_bouldin_score, silhouette_score

    if len(points) != len(labels) or not len(labels) or labels.min() < 0 or labels.max() >= clusters:
        raise ValueError(
            f"concept_health: {len(points)} points, {len(labels)} labels; each point needs a label from 0 to "
            f"{clusters - 1}"
        )
    rows = np.random.default_rng(seed).permutation(len(points))[:sample]
    sampled_points, sampled_labels = points[rows], labels[rows]
    defined = 1 < len(np.unique(sampled_labels)) < len(sampled_labels)
    sizes = np.bincount(labels, minlength=clusters)
    return ConceptHealth(
        silhouette=float(silhouette_score(sampled_points, sampled_labels)) if defined else float("nan"),
        davies_bouldin=(
            float(davies_bouldin_score(sampled_points, sampled_labels)) if defined else float("nan")
        ),
        non_empty=int((sizes > 0).sum()),
        size_gini=gini(sizes),
        perplexity=1.0 if soft_values is None else float(perplexities(soft_values).mean()),
    )


def gini(sizes: np.ndarray) -> float:
    """The Gini coefficient of sizes: 0 if all are equal, and for empty input."""
    ordered = np.sort(np.asarray(sizes, dtype=np.float64))
    total, count = ordered.sum(), len(ordered)
    if total <= 0:
        return 0.0
    return float((2 * np.arange(1, count + 1) - count - 1) @ ordered / (count * total))


def perplexities(probabilities: Float[np.ndarray, "n top"]) -> Float[np.ndarray, " n"]:
    """The exponential of the entropy of each row, whose entries sum to 1."""
    from scipy.special import entr

    return np.exp(entr(probabilities.astype(np.float64)).sum(1))


def agreement(labels: Labels, classes: np.ndarray) -> Agreement:
    """The agreement of cluster `labels` [n] with `classes` [n]. Raises ValueError if the lengths differ."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    if len(labels) != len(classes) or not len(labels):
        raise ValueError(f"{len(labels)} labels and {len(classes)} classes: give one of each for every point")
    return Agreement(
        nmi=float(normalized_mutual_info_score(classes, labels)),
        purity=float(contingency_matrix(classes, labels).max(0).sum() / len(labels)),
        ari=float(adjusted_rand_score(classes, labels)),
    )


def stability(labels: Labels, others: Labels) -> float:
    """The adjusted Rand index of two clusterings of the same points: 1 if they are equal, 0 for chance."""
    return agreement(labels, others).ari


def kept_together(labels: Labels, image_of_caption: Int[np.ndarray, " n"]) -> Float[np.ndarray, " clusters"]:
    """For each cluster, the share of the other captions of its pictures that are in the cluster too.

    It is near 1 for a cluster of what pictures show, and near 0 for one of how captions are worded, because a
    wording gathers one caption of every picture. NaN where no picture of the cluster has another caption.
    Raises ValueError if the lengths differ.
    """
    if len(labels) != len(image_of_caption) or not len(labels):
        raise ValueError(f"kept_together: {len(labels)} labels and {len(image_of_caption)} captions")
    _, image = np.unique(image_of_caption, return_inverse=True)
    _, cell, inside = np.unique(np.stack([image, labels]), axis=1, return_inverse=True, return_counts=True)
    together = inside[cell.ravel()] - 1
    others = np.bincount(image)[image] - 1
    clusters = int(labels.max()) + 1
    kept, possible = (
        np.bincount(labels, weights=counts, minlength=clusters) for counts in (together, others)
    )
    return np.divide(kept, possible, out=np.full(clusters, np.nan), where=possible > 0)


def telling_words(captions: Sequence[str], labels: np.ndarray, words: int = 2) -> dict[int, str]:
    """A name for each cluster: its most telling words or pairs of words, such as "traffic light, city".

    Words are ranked by class-based TF-IDF, the frequency in the cluster times log(1 + A / f) with the mean
    number of words in a cluster A and the frequency in all captions f (Grootendorst 2022, BERTopic, eq. 2).
    A function word names a cluster only in a pair of two, such as "nothing but". Names are unique: a name
    that repeats gets more words, in the end the number of its cluster. Raises ValueError if the lengths
    differ.
    """
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import CountVectorizer

    numbers, cluster = np.unique(labels, return_inverse=True)
    if len(captions) != len(cluster) or not len(cluster):
        raise ValueError(f"telling_words: {len(captions)} captions and {len(cluster)} labels")
    vectorizer = CountVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    counts = vectorizer.fit_transform(captions)
    members = csr_array((np.ones(len(cluster)), (cluster, np.arange(len(cluster)))))
    per_cluster = np.asarray((members @ counts).todense())
    terms = vectorizer.get_feature_names_out()
    preference = np.array([_preference(term.split()) for term in terms])
    rarity = preference * np.log1p(per_cluster.sum() / len(numbers) / per_cluster.sum(0))
    names: dict[int, str] = {}
    for number, counted in zip(numbers.tolist(), per_cluster, strict=True):
        weight = counted / max(counted.sum(), 1) * rarity
        kept: list[str] = []
        for index in np.argsort(-weight, kind="stable")[:60]:
            if weight[index] > 0 and not set(terms[index].split()) & set(" ".join(kept).split()):
                kept.append(terms[index])
        choices = [", ".join(kept[:length]) for length in range(words, len(kept) + 1)] or [", ".join(kept)]
        unused = [choice for choice in choices if choice and choice not in names.values()]
        names[number] = unused[0] if unused else f"{choices[0]} {number}".strip()
    return names


def _preference(words: Sequence[str]) -> float:
    """The factor of a term: pairs are clearer than their parts, unless one of the two only joins."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    joins = sum(word in ENGLISH_STOP_WORDS - PLACES_AND_THINGS for word in words)
    if ARTICLES & set(words) or joins == 1:
        return 0.0
    return 1.2 if len(words) == 2 else 1.0
