"""The quality of concept clusters: shape, sizes, stability, and agreement with known categories."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import entr

Labels = Int[np.ndarray, " n"]


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
