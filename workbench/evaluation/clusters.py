"""Are concepts healthy? Their shape, sizes and stability, and what they have to do with known categories."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import entr

Labels = Int[np.ndarray, " n"]


class ConceptHealth(NamedTuple):
    """Numbers about a clustering that need no truth."""

    silhouette: float  # -1 to 1, 1: every point much nearer to its own cluster than to the next
    davies_bouldin: float  # 0 or more, lower is better
    non_empty: int  # clusters with at least one point
    size_gini: float  # 0: all of one size, near 1: one has all
    perplexity: float  # mean over points of the number of concepts that a soft label spreads over


class Agreement(NamedTuple):
    """What clusters have to do with known classes; none of these knows which cluster stands for which
    class."""

    nmi: float  # normalised mutual information, 0 to 1
    purity: float  # share of points whose class is the commonest of their cluster; rises with the clusters
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
    """Health of `labels` (0 to `clusters` - 1) of `points`; `soft_values` are their soft labels' entries.

    Silhouette (Euclidean) and Davies-Bouldin are taken from `sample` points drawn by `seed`, NaN where these
    lie in fewer than two clusters; perplexity is 1 without soft labels. Raises ValueError for labels out of
    range.
    """
    from sklearn.metrics import davies_bouldin_score, silhouette_score

    if len(points) != len(labels) or not len(labels) or labels.min() < 0 or labels.max() >= clusters:
        raise ValueError(f"{len(points)} points, {len(labels)} labels: give one of 0 to {clusters - 1} each")
    chosen = np.random.default_rng(seed).permutation(len(points))[:sample]
    some, their_labels = points[chosen], labels[chosen]
    shaped = 1 < len(np.unique(their_labels)) < len(their_labels)
    sizes = np.bincount(labels, minlength=clusters)
    return ConceptHealth(
        silhouette=float(silhouette_score(some, their_labels)) if shaped else float("nan"),
        davies_bouldin=float(davies_bouldin_score(some, their_labels)) if shaped else float("nan"),
        non_empty=int((sizes > 0).sum()),
        size_gini=gini(sizes),
        perplexity=1.0 if soft_values is None else float(perplexities(soft_values).mean()),
    )


def gini(sizes: np.ndarray) -> float:
    """Gini coefficient of sizes, 0 where all are equal; 0 where there is nothing."""
    ordered = np.sort(np.asarray(sizes, dtype=np.float64))
    total, count = ordered.sum(), len(ordered)
    if total <= 0:
        return 0.0
    return float((2 * np.arange(1, count + 1) - count - 1) @ ordered / (count * total))


def perplexities(probabilities: Float[np.ndarray, "n top"]) -> Float[np.ndarray, " n"]:
    """exp of the entropy of each row, whose entries sum to 1."""
    return np.exp(entr(probabilities.astype(np.float64)).sum(1))


def agreement(labels: Labels, classes: np.ndarray) -> Agreement:
    """How far clusters `labels` [n] agree with `classes` [n] of any kind; ValueError for lengths that
    differ."""
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
    """Adjusted Rand index of two clusterings of the same points, from two seeds say: 1 equal, 0 chance."""
    return agreement(labels, others).ari
