"""Intervals for means and for differences of means, by the bootstrap."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

Numbers = np.ndarray | Tensor | Sequence[int | float]
Groups = np.ndarray | Tensor | Sequence[int | str]

LEVEL = 95.0  # per cent
DRAWS = 1 << 20  # drawn at once, which bounds the memory


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int  # units that were resampled: groups where there are groups, else values
    resamples: int


@dataclass(frozen=True)
class PairedDifference:
    """mean(a) - mean(b) with its 95 % interval: above 0 where `a` is the larger."""

    difference: float
    low: float
    high: float
    n: int  # units that were resampled: groups where there are groups, else values
    resamples: int

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


def bootstrap_interval(
    values: Numbers,
    groups: Groups | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """The mean of `values` [N] with a 95 % percentile bootstrap interval.

    `groups` [N] names the unit each value belongs to (the image of a caption): units are resampled whole, and
    the mean is over the values drawn, so that a unit of six counts for six. Booleans count as 0 and 1. Work
    grows with units x resamples, memory does not. Raises ValueError for lengths that differ, nothing to
    resample, or values that are not finite. Efron & Tibshirani 1993, chapter 13.
    """
    return Interval(*_bootstrap(_vector("values", values), groups, resamples, seed), resamples)


def paired_bootstrap(
    a: Numbers,
    b: Numbers,
    groups: Groups | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """mean(a) - mean(b) with a 95 % percentile interval, a[n] and b[n] being two systems on one query.

    The pairs are resampled, or with `groups` whole units of them; everything else as in `bootstrap_interval`.
    """
    first, second = _vector("a", a), _vector("b", b)
    if len(first) != len(second):
        raise ValueError(f"paired_bootstrap: a and b want one length, got {len(first)} and {len(second)}")
    return PairedDifference(*_bootstrap(first - second, groups, resamples, seed), resamples)


def _bootstrap(
    values: np.ndarray, groups: Groups | None, resamples: int, seed: int
) -> tuple[float, float, float, int]:
    """Mean, lower and upper end, and how many units there are."""
    if resamples < 1:
        raise ValueError(f"bootstrap: resamples = {resamples}, wants at least 1")
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
    """Each unit's sum of values and how many they are."""
    if groups is None:
        return values, np.ones(len(values))
    names = np.asarray(groups)
    if names.shape != values.shape:
        raise ValueError(
            f"bootstrap: wants one group for each of {len(values)} values, got shape {names.shape}"
        )
    member = np.unique(names, return_inverse=True)[1]
    return np.bincount(member, weights=values), np.bincount(member).astype(float)


def _vector(name: str, values: Numbers) -> np.ndarray:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not len(vector):
        raise ValueError(f"bootstrap: {name} wants a list of at least one number, got shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError(
            f"bootstrap: {name} holds {int((~np.isfinite(vector)).sum())} values that are not finite"
        )
    return vector
