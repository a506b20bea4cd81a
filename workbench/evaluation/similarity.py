"""How alike embeddings are: how well one space can be read off another, and how cosines are distributed."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

Array = np.ndarray | Tensor


def pca_floor(target: Array, dim: int) -> float:
    """Best R^2 that any linear map (with bias) from `dim` dimensions to `target` [n, target dim] can reach.

    It is the share of the target's variance in its first `dim` principal components: 1 minus it is a floor
    under the error of a regression head on `dim`-dimensional embeddings. 1 for a target that does not vary,
    which a bias predicts. Raises ValueError for an empty target, values that are not finite, or dim < 0.
    """
    values = _float64(target)
    if values.ndim != 2 or values.numel() == 0 or dim < 0:
        raise ValueError(f"target {tuple(values.shape)} and dim {dim}: give [n, target dim] and 0 or more")
    if not values.isfinite().all():
        raise ValueError("the target holds values that are not finite")
    centred = values - values.mean(0)
    narrow = centred if centred.shape[0] >= centred.shape[1] else centred.T
    variances = torch.linalg.eigvalsh(narrow.T @ narrow).flip(0).clamp(min=0)
    total = float(variances.sum())
    return float(variances[:dim].sum()) / total if total > 0 else 1.0


def readout_r2(source: Array, target: Array, held_out_source: Array, held_out_target: Array) -> float:
    """R^2 on held-out rows of the best linear map (with bias) from `source` [n, dim] to `target` [n, dim'].

    Least squares, with just enough ridge (1e-6 of the mean variance) to be solvable; it is measured against
    predicting the held-out target's mean, so it may be negative. Raises ValueError where rows do not match.
    """
    x, y, held_x, held_y = (_float64(side) for side in (source, target, held_out_source, held_out_target))
    if len(x) != len(y) or len(held_x) != len(held_y) or not len(x):
        raise ValueError(
            f"{len(x)} and {len(y)} rows, held out {len(held_x)} and {len(held_y)}: give one target for each "
            "source"
        )
    mean, target_mean = x.mean(0), y.mean(0)
    centred = x - mean
    gram = centred.T @ centred
    ridge = 1e-6 * max(float(gram.diagonal().mean()), 1e-300) * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.linalg.solve(gram + ridge, centred.T @ (y - target_mean))
    residual = held_y - target_mean - (held_x - mean) @ weights
    variance = (held_y - held_y.mean(0)).square().sum()
    return 1 - float(residual.square().sum() / variance)


class Distributions(NamedTuple):
    """Cosine similarities of matching pairs and of pairs that do not match, and how far these lie apart."""

    matching: Float[np.ndarray, " n"]
    others: Float[np.ndarray, " m"]
    area: float  # between the two cumulative distributions: the difference of means where one lies above
    overlap: (
        float  # P(other >= matching) for one of each drawn at random, ties half: 0 is perfect, 1/2 chance
    )


def similarity_distributions(
    left: Array, right: Array, *, pairs: int = 100_000, seed: int = 0, groups: Array | None = None
) -> Distributions:
    """Cosines of row n of `left` with row n of `right`, and of random rows that do not belong together.

    `left` and `right` are [n, dim] of any norm. Rows of one of the `groups` [n] (captions of one picture,
    say) count as belonging together; None: every row is a group. `pairs` of those that do not match are
    drawn. Raises ValueError where there are none.
    """
    one, other = (torch.nn.functional.normalize(_float64(side), dim=1) for side in (left, right))
    count = len(one)
    group = np.arange(count) if groups is None else np.asarray(groups)
    if len(other) != count or len(group) != count or len(np.unique(group)) < 2:
        raise ValueError("give as many rows on both sides, of two groups or more")
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


def effective_rank(embeddings: Array) -> float:
    """exp of the entropy of the centred embeddings' normalised singular values: 1 to dim.

    `embeddings` [n, dim]. Roy and Vetterli 2007, definition 1. 0 where nothing varies.
    """
    values = _float64(embeddings)
    singular = torch.linalg.svdvals(values - values.mean(0))
    total = float(singular.sum())
    if total <= 0:
        return 0.0
    share = singular / total
    return float(torch.special.entr(share).sum().exp())


def mean_cosine(embeddings: Array, centred: bool = False) -> float:
    """Mean cosine of two different rows of `embeddings` [n, dim], as they are or minus their mean.

    Near 1 means that all point one way, which language models' states tend to; NaN for fewer than two rows.
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
    return torch.from_numpy(np.array(values, dtype=np.float64))  # a copy: memory maps cannot be written to
