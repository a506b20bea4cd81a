"""Similarity of embeddings: linear predictability of one space from another, and distributions of cosines."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.evaluation.significance import Interval

Array = np.ndarray | Tensor


def pca_floor(target: Array, dim: int) -> float:
    """The best R^2 that a linear map (with bias) from `dim` dimensions to `target` [n, target dim] can reach.

    It is the share of the target's variance in its first `dim` principal components. One minus it is a lower
    bound on the relative error of a regression head on `dim`-dimensional embeddings. It is 1 for a constant
    target. Raises ValueError for an empty target, values that are not finite, or dim < 0.
    """
    values = _float64(target)
    if values.ndim != 2 or values.numel() == 0 or dim < 0:
        raise ValueError(
            f"pca_floor: target {tuple(values.shape)} and dim {dim}; give [n, target dim] and a dim >= 0"
        )
    if not values.isfinite().all():
        raise ValueError("pca_floor: the target holds values that are not finite")
    centred = values - values.mean(0)
    narrow = centred if centred.shape[0] >= centred.shape[1] else centred.T
    variances = torch.linalg.eigvalsh(narrow.T @ narrow).flip(0).clamp(min=0)
    total = float(variances.sum())
    return float(variances[:dim].sum()) / total if total > 0 else 1.0


def readout_r2(source: Array, target: Array, held_out_source: Array, held_out_target: Array) -> float:
    """The R^2 on held-out rows of a linear map (with bias) from `source` [n, dim] to `target` [n, dim'].

    The map is fitted by least squares with a small ridge (1e-6 of the mean variance). The baseline predicts
    the mean of the held-out target, so R^2 may be negative. Raises ValueError if the numbers of rows differ.
    """
    residual, variance = _readout(source, target, held_out_source, held_out_target)
    return 1 - float(residual.sum() / variance.sum())


def readout_r2_interval(
    source: Array,
    target: Array,
    held_out_source: Array,
    held_out_target: Array,
    groups: Array,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """`readout_r2` with its 95 % interval by a bootstrap over `groups` [m], the pictures of held-out rows.

    The fitted map stays the same. Raises ValueError if the numbers of rows differ.
    """
    residual, variance = _readout(source, target, held_out_source, held_out_target)
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    sums = [np.bincount(group, weights=part.numpy()) for part in (residual, variance)]
    draws = np.random.default_rng(seed).integers(len(sums[0]), size=(resamples, len(sums[0])))
    ratios = 1 - sums[0][draws].sum(1) / sums[1][draws].sum(1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Interval(1 - sums[0].sum() / sums[1].sum(), float(low), float(high), len(sums[0]), resamples)


def _readout(source: Array, target: Array, held_source: Array, held_target: Array) -> tuple[Tensor, Tensor]:
    """The squared error of each held-out row, and its squared distance to their mean."""
    x, y, held_x, held_y = (_float64(side) for side in (source, target, held_source, held_target))
    if len(x) != len(y) or len(held_x) != len(held_y) or not len(x):
        raise ValueError(
            f"readout_r2: {len(x)} sources and {len(y)} targets, held out {len(held_x)} and {len(held_y)}; "
            "give one target for each source"
        )
    mean, target_mean = x.mean(0), y.mean(0)
    centred = x - mean
    gram = centred.T @ centred
    ridge = 1e-6 * max(float(gram.diagonal().mean()), 1e-300) * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.linalg.solve(gram + ridge, centred.T @ (y - target_mean))
    residual = held_y - target_mean - (held_x - mean) @ weights
    return residual.square().sum(1), (held_y - held_y.mean(0)).square().sum(1)


class Distributions(NamedTuple):
    """The cosine similarities of matching and non-matching pairs, and the distance of both distributions."""

    matching: Float[np.ndarray, " n"]
    others: Float[np.ndarray, " m"]
    area: float  # between the cumulative distributions, i.e. their Wasserstein distance
    overlap: float  # P(other >= matching) for a random pair of each kind, ties half: 0 is perfect, 0.5 chance


def similarity_distributions(
    left: Array, right: Array, *, pairs: int = 100_000, seed: int = 0, groups: Array | None = None
) -> Distributions:
    """The cosines of row n of `left` with row n of `right`, and of random rows that do not match.

    `left` and `right` are [n, dim] of any norm. Rows of the same group in `groups` [n], such as captions of
    one picture, match each other; by default every row is a group. Non-matching pairs are sampled `pairs`
    times. Raises ValueError if there are no such pairs.
    """
    from scipy import stats

    one, other = (torch.nn.functional.normalize(_float64(side), dim=1) for side in (left, right))
    count = len(one)
    group = np.arange(count) if groups is None else np.asarray(groups)
    if len(other) != count or len(group) != count or len(np.unique(group)) < 2:
        raise ValueError(
            "similarity_distributions: both sides need the same number of rows, from at least two groups"
        )
    generator = np.random.default_rng(seed)
    first, second = generator.integers(count, size=(2, pairs))
    apart = group[first] != group[second]
    first, second = torch.from_numpy(first[apart]), torch.from_numpy(second[apart])
    matching = (one * other).sum(1).numpy()
    others = torch.cat(
        [(one[a] * other[b]).sum(1) for a, b in zip(first.split(8192), second.split(8192), strict=True)]
    ).numpy()
    wins = stats.mannwhitneyu(others, matching, method="asymptotic").statistic  # pairs, ties half
    area = float(stats.wasserstein_distance(matching, others))
    return Distributions(matching, others, area, float(wins / (len(others) * count)))


class ModalityGap(NamedTuple):
    """The distance between the mean unit embeddings of pictures and of captions, from 0 to 2."""

    gap: float
    chance: float  # the same between two random halves of the captions, which have no gap


def modality_gap(image: Array, text: Array, *, seed: int = 0) -> ModalityGap:
    """How far the embeddings of pictures [n, dim] and of captions [m, dim], of any norm, lie apart.

    Liang et al. 2022, "Mind the gap", section 2.1. Raises ValueError for fewer than one picture or two
    captions.
    """
    images, texts = (torch.nn.functional.normalize(_float64(side), dim=1) for side in (image, text))
    if len(images) < 1 or len(texts) < 2:
        raise ValueError(
            f"modality_gap: {len(images)} pictures and {len(texts)} captions; give 1 and 2 at least"
        )
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(texts)))
    halves = [texts[half].mean(0) for half in order.tensor_split(2)]
    return ModalityGap(float((images.mean(0) - texts.mean(0)).norm()), float((halves[0] - halves[1]).norm()))


def effective_rank(embeddings: Array) -> float:
    """The exponential of the entropy of the normalised singular values of centred embeddings, 1 to dim.

    `embeddings` is [n, dim]. Roy and Vetterli 2007, definition 1. It is 0 for constant embeddings.
    """
    values = _float64(embeddings)
    singular = torch.linalg.svdvals(values - values.mean(0))
    total = float(singular.sum())
    if total <= 0:
        return 0.0
    share = singular / total
    return float(torch.special.entr(share).sum().exp())


def mean_cosine(embeddings: Array, centred: bool = False) -> float:
    """The mean cosine of two different rows of `embeddings` [n, dim], optionally `centred`.

    A value near 1 means that all embeddings point in one direction, as hidden states of language models tend
    to. It is NaN for fewer than two rows.
    """
    values = _float64(embeddings)
    units = torch.nn.functional.normalize(values - values.mean(0) if centred else values, dim=1)
    count = len(units)
    if count < 2:
        return float("nan")
    # The sum of all cosines is the square of the sum of the unit vectors.
    return float((units.sum(0).square().sum() - units.square().sum()) / (count * (count - 1)))


def _float64(values: Array) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().double().cpu()
    return torch.from_numpy(np.array(values, dtype=np.float64))  # a copy, because memory maps are read-only
