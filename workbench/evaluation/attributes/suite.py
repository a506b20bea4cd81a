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
_SEEN_SPLIT = "test"  # of the embedded dataset: scenes of names that are trained on


def scene_attribute_scores(
    model: DualEncoder, recipe: Recipe, pairs: Pairs, embedded: Embedded
) -> tuple[Scores, Queries]:
    """The three protocols on the scenes of one object in a split; nothing for other data.

    Classes are all names that the dataset has, unseen those held out of training. Where a split shows the
    unseen only (`test_concepts`), the images of seen classes beside them are those of `test`, which gives the
    harmonic mean; elsewhere there is the accuracy on seen classes. Attributes without the name tell apart
    the combinations of category, size and background that the split shows.
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
        # Pictures of another split: numbered after this one's.
        positions = np.concatenate([positions, len(embedded.image) + rows])
    named = class_name_accuracy(every_image, class_weights(model, labelled), labels, labelled.unseen)
    more_scores, more_queries = accuracy_results("class_name", named, labels, labelled.unseen, positions)
    return scores | more_scores, queries | more_queries


def class_weights(model: DualEncoder, labelled: Labelled) -> Tensor:
    """One unit embedding a class [classes, D], from all its prompts."""
    prompts = labelled.prompts()
    embedded = encode_texts(model, [prompt for of_class in prompts for prompt in of_class])
    return zero_shot_weights(embedded.view(len(prompts), len(labelled.templates), -1))


def attribute_scores(
    model: DualEncoder, labelled: Labelled, image: Tensor, positions: np.ndarray
) -> tuple[Scores, Queries]:
    """Attributes without the class name, and each attribute alone, of a set that has attributes.

    `image` [N, D] embeds the images of `labelled`; `positions` [N] is what queries call them.
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
    """Numbers of one protocol under their names, and what every image adds to each of them."""
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
