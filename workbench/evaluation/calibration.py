"""Calibration of retrieval: whether a model with a confidence of p is correct in p of the cases."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
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
SCALES = (1e-2, 1e4)  # the bounds of the search for the best scale


class Calibration(NamedTuple):
    """Confidence and accuracy in [0, 1] of queries in bins, the least confident first."""

    confidence: np.ndarray  # [bins], mean confidence of the bin
    accuracy: np.ndarray  # [bins], share of correct queries in the bin
    queries: np.ndarray  # [bins], number of queries in the bin
    error: float  # expected calibration error: mean of |accuracy - confidence|, weighted by queries


def retrieval_confidence(
    query: Matrix, candidate: Matrix, right: Indices, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """The confidence of a model in its first result, float64 [Q], and whether it is correct, bool [Q].

    The confidence is the largest value of softmax(`scale` x cosines) over all candidates. `query` [Q, D] and
    `candidate` [C, D] have any norm. `right` [Q] are the indices in [0, C) of the correct candidates, one per
    query, because several would share the probability. Ties count as errors. Raises ValueError if the shapes
    do not fit.
    """
    answers = _checked(query, candidate, right)
    confidence, correct = [], []
    for part, scores in _scores(query, candidate):
        best = scores.topk(min(2, scores.shape[1]), dim=1)
        confidence.append((scale * best.values[:, 0] - (scale * scores).logsumexp(1)).exp())
        unique = (best.values[:, 0] - best.values[:, -1] > TIE) | (scores.shape[1] == 1)
        correct.append((best.indices[:, 0] == answers[part]) & unique)
    return torch.cat(confidence).numpy(), torch.cat(correct).numpy()


def calibration_curve(confidence: np.ndarray, correct: np.ndarray, bins: int = 10) -> Calibration:
    """Accuracy against confidence in `bins` with equal numbers of queries (fewer bins for fewer queries).

    `confidence` [Q] is in [0, 1], `correct` [Q] is 0 or 1. Bins of equal width (Guo et al. 2017) would be
    nearly all empty for a model that is never confident; bins of equal count follow Nguyen and O'Connor 2015.
    Raises ValueError if the lengths differ or there are no queries.
    """
    certainty, truth = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if certainty.shape != truth.shape or certainty.ndim != 1 or not len(certainty) or bins < 1:
        raise ValueError(f"calibration: {certainty.shape} confidences, {truth.shape} results, {bins} bins")
    order = np.argsort(certainty, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    count = np.array([len(part) for part in parts])
    means, shares = (np.array([values[part].mean() for part in parts]) for values in (certainty, truth))
    return Calibration(means, shares, count, float((count * np.abs(shares - means)).sum() / count.sum()))


def calibrated_scale(query: Matrix, candidate: Matrix, right: Indices) -> float:
    """The scale that minimises the cross-entropy of retrieval: temperature scaling (Guo et al. 2017, 4.2).

    Arguments as for `retrieval_confidence`. Holds all scores [Q, C] in float64. The search is between 0.01
    and 10,000; if every query is answered correctly, any sufficiently large scale is optimal.
    """
    from scipy.optimize import minimize_scalar

    answers = _checked(query, candidate, right)
    scores = torch.cat([scores for _, scores in _scores(query, candidate)])
    correct = scores.gather(1, answers[:, None])[:, 0]

    def loss(log_scale: float) -> float:
        scale = float(np.exp(log_scale))
        return float(((scale * scores).logsumexp(1) - scale * correct).mean())

    # The loss is convex in the scale, hence unimodal in its logarithm.
    result = minimize_scalar(loss, bounds=np.log(SCALES), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(result.x))


def _checked(query: Matrix, candidate: Matrix, right: Indices) -> Tensor:
    shapes = tuple(query.shape), tuple(candidate.shape)
    if query.ndim != 2 or candidate.ndim != 2 or shapes[0][1] != shapes[1][1] or 0 in shapes[0] + shapes[1]:
        raise ValueError(f"calibration: needs queries [Q, D] and candidates [C, D], got {shapes}")
    return checked_indices("right", right, len(query), len(candidate))


def _scores(query: Matrix, candidate: Matrix) -> Iterator[tuple[slice, Tensor]]:
    """The cosines [chunk, C] of queries and candidates, chunk by chunk."""
    queries, candidates = NormalizedEmbeddings(query), NormalizedEmbeddings(candidate)
    every = torch.arange(len(candidate))
    for part in slices(len(query), CHUNK):
        yield part, all_cosines(queries, torch.arange(part.start, part.stop), candidates, every)
