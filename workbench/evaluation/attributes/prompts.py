"""Sentences about attributes: of a class without its name, and of one attribute alone."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.data.labelled.labels import Attributes, Labelled
from workbench.evaluation.zero_shot.metrics import zero_shot_weights

MOST = 10  # attributes in a sentence: CLIP reads 77 tokens, and the ten longest of CUB take 73


class Described(NamedTuple):
    """Classes as sentences about attributes: `labels` [N] index `sentences`; `unseen` is [classes] or
    None."""

    sentences: list[str]
    labels: np.ndarray
    unseen: np.ndarray | None


def described_classes(labelled: Labelled, most: int = MOST) -> Described:
    """The classes of protocol (b), described by their attributes without the name.

    If classes have attributes, a class is described by its `most` characteristic ones: the strongest of each
    group, ordered by how far their strength exceeds the mean over classes. If only images have attributes,
    every combination in an image is a class, so none is unseen. Raises ValueError for a set without
    attributes.
    """
    attributes = labelled.attributes
    if attributes is None:
        raise ValueError(f"{labelled.pairs.name} has no attributes")
    if attributes.of_class is not None:
        sentences = [attributes.sentence(chosen) for chosen in _most_characteristic(attributes, most)]
        return Described(sentences, labelled.labels, labelled.unseen)
    shown = np.nan_to_num(labelled.attributes_of_images())
    combinations, labels = np.unique(shown, axis=0, return_inverse=True)
    sentences = [attributes.sentence(np.flatnonzero(row).tolist()) for row in combinations]
    return Described(sentences, labels.reshape(-1), None)


def single_sentences(attributes: Attributes) -> list[str]:
    """A sentence for each attribute alone, then one without attributes, [A + 1]."""
    numbers = [[number] for number in range(len(attributes.names))]
    return [attributes.sentence(chosen) for chosen in (*numbers, [])]


def without_each(
    groups: list[str | None], with_each: Float[Tensor, "attributes dim"], plain: Float[Tensor, " dim"]
) -> Float[Tensor, "attributes dim"]:
    """The embeddings without each attribute, to which protocol (c) compares those with it.

    For a value of a group this is the normalised mean of the group's other values. For an attribute without a
    group it is the sentence without attributes, because CLIP hardly understands "not".
    """
    others = [
        [other for other, name in enumerate(groups) if name == group and other != number]
        if group is not None
        else []
        for number, group in enumerate(groups)
    ]
    return torch.stack([zero_shot_weights(with_each[rest][None])[0] if rest else plain for rest in others])


def _most_characteristic(attributes: Attributes, most: int) -> list[list[int]]:
    """The indices of the attributes that describe each class."""
    assert attributes.strength is not None and attributes.of_class is not None
    strength, has = np.nan_to_num(attributes.strength), attributes.of_class == 1
    known = (~np.isnan(attributes.strength)).sum(axis=0)
    above_mean = strength - strength.sum(axis=0) / np.maximum(known, 1)
    descriptions = []
    for row in range(len(strength)):
        strongest: dict[object, int] = {}
        for number in sorted(np.flatnonzero(has[row]), key=lambda number: -strength[row, number]):
            group = attributes.groups[number]
            strongest.setdefault(number if group is None else group, int(number))
        descriptions.append(sorted(strongest.values(), key=lambda number: -above_mean[row, number])[:most])
    return descriptions
