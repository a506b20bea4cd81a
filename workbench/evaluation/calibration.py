"""Calibration of the scale: does a model that retrieves with a confidence of p find the right one p of the
time?"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from workbench.evaluation.retrieval.normalized import (
    TIE,
    Indices,
    Matrix,
    NormalizedEmbeddings,
    all_cosines,
    checked_indices,
    slices,
)

CHUNK = 1024  # queries scored at once
SCALES = (1e-2, 1e4)  # between which the best one is looked for


class Calibration(NamedTuple):
    """Queries in bins by confidence, least confident first; all in [0, 1]."""

    confidence: np.ndarray  # [bins], mean of the bin
    accuracy: np.ndarray  # [bins], share of the bin that is right
    queries: np.ndarray  # [bins], how many
    error: float  # expected calibration error: mean of |accuracy - confidence|, weighted by queries


def retrieval_confidence(
    query: Matrix, candidate: Matrix, right: Indices, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """How sure a model is of what it retrieves, float64 [Q], and whether that is right, bool [Q].

    The confidence is the largest of softmax(`scale` x cosines) over all candidates. `query` [Q, D] and
    `candidate` [C, D] are of any norm, `right` [Q] integers in [0, C): one right answer a query, since
    several would share the probability. Ties count against us. Raises ValueError where shapes make no sense.
    """
    owner = _checked(query, candidate, right)
    sure, correct = [], []
    for part, scores in _scores(query, candidate):
        best = scores.topk(min(2, scores.shape[1]), dim=1)
        sure.append((scale * best.values[:, 0] - (scale * scores).logsumexp(1)).exp())
        alone = (best.values[:, 0] - best.values[:, -1] > TIE) | (scores.shape[1] == 1)
        correct.append((best.indices[:, 0] == owner[part]) & alone)
    return torch.cat(sure).numpy(), torch.cat(correct).numpy()


def calibration_curve(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> Calibration:
    """Confidence against accuracy in `bins` of equally many queries (fewer where there are fewer queries).

    `confidence` [Q] in [0, 1], `correct` [Q] 0 or 1. Bins of equal width (Guo et al. 2017) would be empty but
    for one where a model is never sure; equal counts are those of Nguyen and O'Connor 2015. Raises ValueError
    where lengths differ or there is no query.
    """
    sure, truth = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if sure.shape != truth.shape or sure.ndim != 1 or not len(sure) or bins < 1:
        raise ValueError(f"calibration: {sure.shape} confidences, {truth.shape} results, {bins} bins")
    order = np.argsort(sure, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    count = np.array([len(part) for part in parts])
    means, shares = (np.array([values[part].mean() for part in parts]) for values in (sure, truth))
    return Calibration(means, shares, count, float((count * np.abs(shares - means)).sum() / count.sum()))


def calibrated_scale(query: Matrix, candidate: Matrix, right: Indices) -> float:
    """The scale with the least cross-entropy of retrieval: temperature scaling (Guo et al. 2017, 4.2).

    Arguments as for `retrieval_confidence`; holds all scores [Q, C] in float64. Looked for between 0.01 and
    10,000; where every query is answered rightly, any that is large enough will do.
    """
    owner = _checked(query, candidate, right)
    scores = torch.cat([scores for _, scores in _scores(query, candidate)])
    own = scores.gather(1, owner[:, None])[:, 0]

    def loss(log_scale: float) -> float:
        scale = float(np.exp(log_scale))
        return float(((scale * scores).logsumexp(1) - scale * own).mean())

    # The loss is convex in the scale, hence falls and then rises in its logarithm.
    result = minimize_scalar(loss, bounds=np.log(SCALES), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(result.x))


def _checked(query: Matrix, candidate: Matrix, right: Indices) -> Tensor:
    shapes = tuple(query.shape), tuple(candidate.shape)
    if query.ndim != 2 or candidate.ndim != 2 or shapes[0][1] != shapes[1][1] or 0 in shapes[0] + shapes[1]:
        raise ValueError(f"calibration: wants queries [Q, D] and candidates [C, D], got {shapes}")
    return checked_indices("right", right, len(query), len(candidate))


def _scores(query: Matrix, candidate: Matrix) -> Iterator[tuple[slice, Tensor]]:
    """Cosines [part, C] of one part of the queries after another."""
    queries, candidates = NormalizedEmbeddings(query), NormalizedEmbeddings(candidate)
    every = torch.arange(len(candidate))
    for part in slices(len(query), CHUNK):
        yield part, all_cosines(queries, torch.arange(part.start, part.stop), candidates, every)
