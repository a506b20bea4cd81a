"""Intervals for means and differences of means: bootstrap over pictures, and seeds crossed with pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

Numbers = np.ndarray | Tensor | Sequence[int | float]
Groups = np.ndarray | Tensor | Sequence[int | str]

LEVEL = 95.0  # per cent
TAIL = 0.5 + LEVEL / 200
DRAWS = 1 << 20  # random numbers drawn at once, which bounds the memory


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int  # number of resampled units: groups if there are any, otherwise values
    resamples: int


@dataclass(frozen=True)
class PairedDifference:
    """mean(a) - mean(b) with its 95 % interval. It is positive if `a` is larger."""

    difference: float
    low: float
    high: float
    n: int  # number of resampled units: groups if there are any, otherwise values
    resamples: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Components:
    """The variance components of a mean over seeds and pictures, each as a variance of that mean.

    `seeds` and `pictures` include their `interaction`, as is usual for such estimates. `freedom` is the
    number of degrees of freedom of `seeds`, 0 for a single seed.
    """

    seeds: float
    pictures: float
    interaction: float
    freedom: float

    @property
    def half_width(self) -> float:
        """Half the width of the mean's 95 % interval."""
        from scipy import stats

        normal = stats.norm.ppf(TAIL)
        rest = normal**2 * max(self.pictures - self.interaction, 0.0)
        if not self.freedom:
            return float(normal * self.pictures**0.5)
        return float((stats.t.ppf(TAIL, self.freedom) ** 2 * self.seeds + rest) ** 0.5)


@dataclass(frozen=True)
class CrossedDifference:
    """mean(a) - mean(b) over seeds and pictures, with its 95 % interval and variance components."""

    difference: float
    low: float
    high: float
    n: int  # pictures
    components: Components


def crossed_interval(
    a: np.ndarray, b: np.ndarray, groups: Groups | None = None, *, paired: bool = True
) -> CrossedDifference:
    """mean(a) - mean(b) with a 95 % interval that generalises over seeds and pictures.

    `a` [S, N] and `b` [R, N] are the results of two systems by seed and query. `groups` [N] are the pictures
    of the queries; queries of one picture stay together. With `paired`, a[s] and b[s] share their seed (data
    order and initial weights), and S = R. Otherwise seeds are independent, and a side with one row is a model
    that does not depend on a seed. Seeds, pictures and their interaction are crossed random effects. The
    squared half-width is t^2 x seeds + z^2 x (pictures - interaction), the modified large-sample interval of
    Graybill & Wang 1980 (J. Am. Stat. Assoc. 75). `benchmarks/coverage.py` measures its coverage. Raises
    ValueError if the shapes do not fit.
    """
    first, second = np.atleast_2d(np.asarray(a, float)), np.atleast_2d(np.asarray(b, float))
    if first.shape[1] != second.shape[1] or (paired and len(first) != len(second)):
        raise ValueError(
            f"crossed_interval: shapes of a and b do not agree, got {first.shape} and {second.shape}"
        )
    sides = [_by_picture(side, groups) for side in (first, second)]
    between = sides[0].mean(0) - sides[1].mean(0)
    pictures = float(between.var(ddof=1) / len(between)) if len(between) > 1 else 0.0
    parts = [_seed_components(sides[0] - sides[1])] if paired else [_seed_components(side) for side in sides]
    seeds = sum(part[0] for part in parts)
    shares = sum(part[0] ** 2 / part[2] for part in parts if part[2])
    freedom = seeds**2 / shares if shares else float(max(part[2] for part in parts))
    components = Components(seeds, pictures, sum(part[1] for part in parts), freedom)
    difference = float(first.mean() - second.mean())
    half = components.half_width
    return CrossedDifference(difference, difference - half, difference + half, len(between), components)


def _by_picture(results: np.ndarray, groups: Groups | None) -> np.ndarray:
    """The results by seed and picture [S, G], weighted so that their mean equals the mean over queries."""
    totals, sizes = zip(*(_units(_vector("results", row), groups) for row in results), strict=True)
    means = results.mean(1, keepdims=True)
    return means + (np.stack(totals) - means * sizes[0]) * len(sizes[0]) / results.shape[1]


def _seed_components(results: np.ndarray) -> tuple[float, float, int]:
    """Variance of the mean of [S, G] due to seeds and due to the interaction, and degrees of freedom."""
    seeds, pictures = results.shape
    if seeds < 2:
        return 0.0, 0.0, 0
    means = results.mean(1)
    rest = results - means[:, None] - results.mean(0) + means.mean()
    interaction = (rest**2).sum() / ((seeds - 1) * max(pictures - 1, 1)) / (seeds * pictures)
    return float(means.var(ddof=1) / seeds), float(interaction), seeds - 1


def bootstrap_interval(
    values: Numbers,
    groups: Groups | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean of `values` [N] with a 95 % percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13).

    `groups` [N] are the units of the values, such as the image of a caption. Whole units are resampled, and
    the mean is over the resampled values, so larger units weigh more. Booleans count as 0 and 1. Time grows
    with units x resamples, memory does not. Raises ValueError if the lengths differ, if there are no values,
    or if values are not finite.
    """
    return Interval(*_bootstrap(_vector("values", values), groups, resamples, seed), resamples)


def paired_bootstrap(
    a: Numbers,
    b: Numbers,
    groups: Groups | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """mean(a) - mean(b) with a 95 % percentile interval, where a[n] and b[n] are two systems on one query.

    Pairs are resampled, or with `groups` whole units of pairs, as in `bootstrap_interval`.
    """
    first, second = _vector("a", a), _vector("b", b)
    if len(first) != len(second):
        raise ValueError(f"paired_bootstrap: a and b differ in length, got {len(first)} and {len(second)}")
    return PairedDifference(*_bootstrap(first - second, groups, resamples, seed), resamples)


def _bootstrap(
    values: np.ndarray, groups: Groups | None, resamples: int, seed: int
) -> tuple[float, float, float, int]:
    """The mean, the ends of its interval, and the number of units."""
    if resamples < 1:
        raise ValueError(f"bootstrap: resamples = {resamples}, needs at least 1")
    totals, sizes = _units(values, groups)
    units = len(totals)
    even = bool((sizes == sizes[0]).all())
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, DRAWS // units)
    for start in range(0, resamples, block):
        drawn = generator.integers(0, units, size=(min(block, resamples - start), units))
        count = sizes[0] * units if even else sizes[drawn].sum(axis=1)
        means[start : start + len(drawn)] = totals[drawn].sum(axis=1) / count
    low, high = np.percentile(means, [50 - LEVEL / 2, 50 + LEVEL / 2])
    return float(values.mean()), float(low), float(high), units


def _units(values: np.ndarray, groups: Groups | None) -> tuple[np.ndarray, np.ndarray]:
    """The sum and the number of the values of each unit."""
    if groups is None:
        return values, np.ones(len(values))
    names = np.asarray(groups)
    if names.shape != values.shape:
        raise ValueError(
            f"bootstrap: needs one group for each of {len(values)} values, got shape {names.shape}"
        )
    member = np.unique(names, return_inverse=True)[1]
    return np.bincount(member, weights=values), np.bincount(member).astype(float)


def _vector(name: str, values: Numbers) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not len(vector):
        raise ValueError(f"bootstrap: {name} must be a list of at least one number, got shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError(
            f"bootstrap: {name} holds {int((~np.isfinite(vector)).sum())} values that are not finite"
        )
    return vector
