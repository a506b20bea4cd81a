"""Attributes: three separate protocols, each with its own function and type of result.

Classes by name; classes by attributes instead of the name; and each attribute by itself. The texts of the
latter two are in `prompts.py`.
"""

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from workbench.evaluation.retrieval.normalized import (
    Indices,
    Matrix,
    NormalizedEmbeddings,
    all_cosines,
    checked_indices,
)
from workbench.evaluation.zero_shot.metrics import zero_shot_metrics

_DECIMALS = 12  # scores that differ by less are equal, so that rounding in float64 does not order them


@dataclass(frozen=True)
class ClassAccuracy:
    """Mean per-class top-1 accuracies in [0, 1], NaN if there are no images of such classes.

    `seen` and `unseen` are those of images of seen and of unseen classes against all classes (generalised
    zero-shot learning), and `harmonic_mean` is theirs. `zero_shot` is that of images of unseen classes
    against the unseen classes only. Xian et al. 2017 (arXiv 1707.00600), section 5.
    """

    mean_per_class: float
    seen: float
    unseen: float
    harmonic_mean: float
    zero_shot: float
    correct: np.ndarray  # bool [N], against all classes
    correct_among_unseen: np.ndarray  # bool [images of unseen classes], in their order


class ByClassName(ClassAccuracy):
    """The accuracy of classes recognised by their names."""


class ByAttributes(ClassAccuracy):
    """The accuracy of classes recognised by their attributes, without the name."""


class AttributePrediction(NamedTuple):
    """How well single attributes are predicted from images: shares in [0, 1], NaN if there is nothing to
    rank.

    `average_precision` [A] is NaN for the `left_out` attributes that no image, or every image, is known to
    have. `chance` is the mean share of images that have an attribute, which random scores reach. `mean` is
    the mean of `result` [Q], which has an entry for each attribute of each image in `image` [Q].
    """

    average_precision: np.ndarray
    mean: float
    chance: float
    left_out: int
    result: np.ndarray
    image: np.ndarray


Accuracy = TypeVar("Accuracy", bound=ClassAccuracy)


def class_name_accuracy(
    image: Matrix, name_weights: Matrix, labels: Indices, unseen: np.ndarray | None = None
) -> ByClassName:
    """Protocol (a): classes recognised by name. `image` [N, D], `name_weights` [classes, D], of any norm.

    `labels` [N] index classes. `unseen` bool [classes] marks those held out; with None, all values but
    `mean_per_class` are NaN. Ties count as errors. Raises ValueError if shapes or labels are invalid. CLIP
    has met most of these classes in pre-training, so "unseen" is the name of the protocol and not a fact.
    """
    return _accuracy(ByClassName, image, name_weights, labels, unseen)


def attributes_only_accuracy(
    image: Matrix, attribute_weights: Matrix, labels: Indices, unseen: np.ndarray | None = None
) -> ByAttributes:
    """Protocol (b): classes recognised by sentences about their attributes, without the name.

    `attribute_weights` [classes, D] are the embeddings of these sentences. The rest is as in
    `class_name_accuracy`. Classes with the same sentence cannot be distinguished.
    """
    return _accuracy(ByAttributes, image, attribute_weights, labels, unseen)


def attribute_prediction(
    image: Matrix, with_text: Matrix, without_text: Matrix, present: np.ndarray
) -> AttributePrediction:
    """Protocol (c): which images have an attribute, by cos(image, with it) - cos(image, without it).

    `image` is [N, D], `with_text` and `without_text` are [A, D], of any norm. `present` [N, A] is 1, 0, or
    NaN for unknown, which does not count. Average precision is the mean, over the images that have the
    attribute, of the precision at each one's score, tied images included (scikit-learn's). A NaN score counts
    against the model. Raises ValueError if the shapes do not fit.
    """
    truth = np.asarray(present, dtype=np.float64)
    shapes = [tuple(side.shape) for side in (image, with_text, without_text, truth)]
    texts = (len(with_text), image.shape[-1])
    if shapes != [(len(image), texts[1]), texts, texts, (len(image), len(with_text))]:
        raise ValueError(f"attribute_prediction: expects [N, D], [A, D], [A, D] and [N, A], got {shapes}")
    images, (rows, attributes) = NormalizedEmbeddings(image), (torch.arange(size) for size in truth.shape)
    towards, away = (
        all_cosines(images, rows, NormalizedEmbeddings(text), attributes)
        for text in (with_text, without_text)
    )
    scores = (towards - away).round(decimals=_DECIMALS).numpy()
    average = np.full(len(with_text), np.nan)
    contributions, prevalence, positives = [], [], []
    for number in range(len(with_text)):
        judged = np.flatnonzero(~np.isnan(truth[:, number]))
        has = truth[judged, number] == 1
        if not has.any() or has.all():
            continue
        precisions = _precision_at(scores[judged, number], has)
        average[number] = precisions.mean()
        prevalence.append(float(has.mean()))
        contributions.append(precisions / len(precisions))
        positives.append(judged[has])
    if not contributions:
        nothing = np.empty(0)
        return AttributePrediction(average, np.nan, np.nan, len(average), nothing, nothing.astype(np.int64))
    result = np.concatenate(contributions)
    return AttributePrediction(
        average_precision=average,
        mean=float(np.nanmean(average)),
        chance=float(np.mean(prevalence)),
        left_out=len(average) - len(contributions),
        result=result * (len(result) / len(contributions)),
        image=np.concatenate(positives),
    )


def per_class_results(correct: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each image's contribution to the mean per-class accuracy: [N] numbers whose mean it is.

    The weight of an image is inverse to the size of its class; a wrong one contributes 0. `correct` is bool
    [N], `labels` [N].
    """
    images_of = np.bincount(labels, minlength=1)
    return correct * (len(labels) / (np.maximum(images_of, 1)[labels] * (images_of > 0).sum()))


def harmonic_mean(seen: float, unseen: float) -> float:
    """2 U S / (U + S), or 0 if both are 0."""
    return 0.0 if seen + unseen == 0 else 2 * unseen * seen / (unseen + seen)


def _accuracy(
    kind: type[Accuracy], image: Matrix, weights: Matrix, labels: Indices, unseen: np.ndarray | None
) -> Accuracy:
    correct = zero_shot_metrics(image, weights, labels).ranks == 1
    truth = checked_indices("labels", labels, len(image), len(weights)).numpy()
    nobody = np.empty(0, dtype=bool)
    if unseen is None:
        rest = (float("nan"),) * 4
        return kind(_mean_per_class(correct, truth), *rest, correct, nobody)
    if unseen.shape != (len(weights),) or unseen.dtype != bool:
        raise ValueError(f"unseen: expects {len(weights)} booleans, got {unseen.dtype} of {unseen.shape}")
    held_out = unseen[truth]
    seen_accuracy = _mean_per_class(correct[~held_out], truth[~held_out])
    unseen_accuracy = _mean_per_class(correct[held_out], truth[held_out])
    among = nobody
    if held_out.any():
        number = np.cumsum(unseen) - 1
        picked, classes = np.flatnonzero(held_out), np.flatnonzero(unseen)
        among = zero_shot_metrics(image[picked], weights[classes], number[truth[picked]]).ranks == 1
    return kind(
        mean_per_class=_mean_per_class(correct, truth),
        seen=seen_accuracy,
        unseen=unseen_accuracy,
        harmonic_mean=harmonic_mean(seen_accuracy, unseen_accuracy),
        zero_shot=_mean_per_class(among, truth[held_out]),
        correct=correct,
        correct_among_unseen=among,
    )


def _mean_per_class(correct: np.ndarray, labels: np.ndarray) -> float:
    return float(per_class_results(correct, labels).mean()) if len(labels) else float("nan")


def _precision_at(scores: np.ndarray, has: np.ndarray) -> np.ndarray:
    """For each image with the attribute, the share that has it among images with the same or a higher
    score."""
    broken = np.where(has, -np.inf, np.inf)
    _, place = np.unique(-np.where(np.isnan(scores), broken, scores), return_inverse=True)
    having = np.cumsum(np.bincount(place, weights=has))
    return (having / np.cumsum(np.bincount(place)))[place[has]]
