"""The suite "attributes": the three protocols on a zero-shot set, and on a split of the embedded dataset."""

import numpy as np
import torch
from torch import Tensor

from workbench.data.labelled.labels import Labelled
from workbench.data.labelled.scene_labels import has_scenes, scene_labels
from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs
from workbench.evaluation.attributes.prompts import described_classes, single_sentences, without_each
from workbench.evaluation.attributes.protocols import (
    ClassAccuracy,
    attribute_prediction,
    attributes_only_accuracy,
    class_name_accuracy,
    per_class_results,
)
from workbench.evaluation.encode import Embedded, encode_images, encode_texts
from workbench.evaluation.zero_shot.metrics import zero_shot_weights
from workbench.models.dual_encoder import DualEncoder
from workbench.recipe import Recipe

Scores = dict[str, float]
Queries = dict[str, np.ndarray]
_SEEN_SPLIT = "test"  # of the embedded dataset: scenes with names that models train on


def scene_attribute_scores(
    model: DualEncoder, recipe: Recipe, pairs: Pairs, embedded: Embedded
) -> tuple[Scores, Queries]:
    """Score the three protocols on the scenes of one object in a split. Returns nothing for other data.

    Classes are all names of the dataset, and those held out of training are unseen. If a split only shows
    unseen classes (`test_concepts`), images of seen classes are taken from `test`, which gives the harmonic
    mean; other splits give the accuracy on seen classes. Without the name, attributes distinguish the
    combinations of category, size and background in the split.
    """
    if not has_scenes(pairs):
        return {}, {}
    readable = pairs.select(embedded.rows)
    labelled = scene_labels(readable, every=True)
    if not len(labelled):
        return {}, {}
    place = {identity: position for position, identity in enumerate(readable.ids)}
    positions = np.array([place[identity] for identity in labelled.pairs.ids], dtype=np.int64)
    image = embedded.image[positions]
    scores, queries = attribute_scores(model, labelled, image, positions)
    labels, every_image = labelled.labels, image
    assert labelled.unseen is not None
    if labelled.unseen[labels].all():
        options = recipe.data.options(train=False)
        seen = scene_labels(load_pairs(recipe.data.source, _SEEN_SPLIT, **options), every=True)
        more, rows, _ = encode_images(model, seen.pairs, recipe.evaluation.batch)
        labels, every_image = np.concatenate([labels, seen.labels[rows]]), torch.cat([image, more])
        # Pictures of the other split are numbered after those of this split.
        positions = np.concatenate([positions, len(embedded.image) + rows])
    named = class_name_accuracy(every_image, class_weights(model, labelled), labels, labelled.unseen)
    more_scores, more_queries = accuracy_results("class_name", named, labels, labelled.unseen, positions)
    return scores | more_scores, queries | more_queries


def class_weights(model: DualEncoder, labelled: Labelled) -> Tensor:
    """One unit embedding per class, [classes, D], from all its prompts."""
    prompts = labelled.prompts()
    embedded = encode_texts(model, [prompt for of_class in prompts for prompt in of_class])
    return zero_shot_weights(embedded.view(len(prompts), len(labelled.templates), -1))


def attribute_scores(
    model: DualEncoder, labelled: Labelled, image: Tensor, positions: np.ndarray
) -> tuple[Scores, Queries]:
    """Score classes by attributes without their name, and single attributes, for a set that has attributes.

    `image` [N, D] are embeddings of the images of `labelled`, and `positions` [N] identify them in queries.
    """
    attributes = labelled.attributes
    assert attributes is not None
    described = described_classes(labelled)
    weights = encode_texts(model, described.sentences)
    labels, unseen = described.labels, described.unseen
    accuracy = attributes_only_accuracy(image, weights, labels, unseen)
    scores, queries = accuracy_results("attributes_only", accuracy, labels, unseen, positions)
    sentences = encode_texts(model, single_sentences(attributes))
    with_each, plain = sentences[:-1], sentences[-1]
    prediction = attribute_prediction(
        image, with_each, without_each(attributes.groups, with_each, plain), labelled.attributes_of_images()
    )
    scores["attribute_prediction_left_out"] = float(prediction.left_out)
    if not np.isnan(prediction.mean):
        key = "attribute_prediction_map"
        scores |= {key: prediction.mean, "attribute_prediction_chance": prediction.chance}
        queries |= {f"{key}_result": prediction.result, f"{key}_image": positions[prediction.image]}
    return scores, queries


def accuracy_results(
    protocol: str,
    accuracy: ClassAccuracy,
    labels: np.ndarray,
    unseen: np.ndarray | None,
    positions: np.ndarray,
) -> tuple[Scores, Queries]:
    """The values of one protocol by name, and each image's contribution to them."""
    held_out = np.zeros(len(labels), dtype=bool) if unseen is None else unseen[labels]
    everyone = np.ones(len(labels), dtype=bool)
    kinds = {
        "mean_per_class": (accuracy.mean_per_class, accuracy.correct, everyone),
        "seen_mean_per_class": (accuracy.seen, accuracy.correct[~held_out], ~held_out),
        "unseen_mean_per_class": (accuracy.unseen, accuracy.correct[held_out], held_out),
        "zero_shot_mean_per_class": (accuracy.zero_shot, accuracy.correct_among_unseen, held_out),
    }
    scores: Scores = {}
    queries: Queries = {}
    for kind, (value, correct, chosen) in kinds.items():
        if not np.isnan(value):
            scores[f"{protocol}_{kind}"] = value
            queries[f"{protocol}_{kind}_result"] = per_class_results(correct, labels[chosen])
            queries[f"{protocol}_{kind}_image"] = positions[chosen]
    if not np.isnan(accuracy.harmonic_mean):
        scores[f"{protocol}_harmonic_mean"] = accuracy.harmonic_mean
    return scores, queries
