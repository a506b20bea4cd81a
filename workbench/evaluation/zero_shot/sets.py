"""Evaluates the labelled sets that a recipe names beside its own data."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from workbench.data.labelled.load import KINDS, Labelled, load_labelled
from workbench.errors import SettingError
from workbench.evaluation.attributes.protocols import class_name_accuracy, per_class_results
from workbench.evaluation.attributes.suite import (
    Queries,
    Scores,
    accuracy_results,
    attribute_scores,
    class_weights,
)
from workbench.evaluation.encode import encode_images
from workbench.evaluation.probes.classifiers import classifier_scores
from workbench.evaluation.zero_shot.metrics import zero_shot_metrics
from workbench.models.dual_encoder import DualEncoder
from workbench.recipe import Recipe


def zero_shot_sets(recipe: Recipe, taken: list[str], setting: str = "labelled") -> dict[str, str]:
    """The sources in `evaluation.labelled` by name, which is that of the folder with its prefix.

    `setting` is another list of sources, `during_training`. Raises SettingError if a name occurs twice or is
    already `taken`.
    """
    sets: dict[str, str] = {}
    for source in getattr(recipe.evaluation, setting):
        prefix = re.match(rf"({'|'.join(KINDS)}):(.+)", source)
        kind, path = prefix.groups() if prefix else ("", source)
        folder = path if path.startswith("scenes:") else Path(path).expanduser().resolve().name
        name = re.sub(r"[^\w.-]+", "-", f"{kind}-{folder}" if kind else folder).strip("-.") or "labelled"
        if name in sets or name in taken:
            problem = f"its results would be called {name!r}, like those of another set or split"
            raise SettingError(f"evaluation.{setting}", source, problem, "Give its folder another name.")
        sets[name] = source
    return sets


def open_set(recipe: Recipe, source: str, setting: str = "labelled") -> Labelled:
    """Open a set as the recipe reads its data; SettingError for `evaluation.labelled`, or another `setting`,
    if there is no such set."""
    data = recipe.data
    try:
        return load_labelled(
            source,
            max_failed=data.max_failed,
            max_pixels=data.max_pixels,
            scenes=data.scenes,
            image_size=data.image_size,
        )
    except SettingError as error:
        problem = f"{error.value}: {error.problem}"
        raise SettingError(f"evaluation.{setting}", source, problem, error.remedy) from error


def evaluate_set(model: DualEncoder, recipe: Recipe, source: str) -> tuple[dict[str, Any], Queries]:
    """Evaluate a set. Returns the report, with its numbers under `scores`, and the results of single images.

    Raises SettingError for `evaluation.labelled` if there is no such set.
    """
    whole = open_set(recipe, source)
    labelled = whole.for_testing()
    image, rows, failed = encode_images(model, labelled.pairs, recipe.evaluation.batch)
    scores, queries = labelled_scores(model, labelled.select(rows), image)
    more, of_queries, learned_from = classifier_scores(model, recipe, whole, image, rows)
    scores, queries = scores | more, queries | of_queries
    report = {
        "data": labelled.pairs.fingerprint,
        "scores": scores,
        "images": len(rows),
        "captions": 0,
        "classes": len(labelled.class_names),
        "failed": dict(failed + labelled.pairs.rejected),
    }
    if learned_from:
        report["classifiers_learned_from"] = learned_from
    return report, queries


def labelled_scores(model: DualEncoder, labelled: Labelled, image: Tensor) -> tuple[Scores, Queries]:
    """Zero-shot accuracy by class names, and the attribute protocols that the set supports.

    `image` [N, D] embeds the images of `labelled`, in order.
    """
    weights = class_weights(model, labelled)
    metrics = zero_shot_metrics(image, weights, labelled.labels, labelled.class_names)
    correct, positions = metrics.ranks == 1, np.arange(len(labelled))
    scores: Scores = {
        f"zero_shot_{name}": getattr(metrics, name) for name in ("top1", "top5", "mean_per_class")
    }
    results = {
        "zero_shot_correct": correct,
        "zero_shot_top5_result": metrics.ranks <= 5,
        "zero_shot_mean_per_class_result": per_class_results(correct, labelled.labels),
    }
    queries: Queries = {**results, **{f"{key.removesuffix('_result')}_image": positions for key in results}}
    if labelled.attributes is not None or labelled.unseen is not None:
        named = class_name_accuracy(image, weights, labelled.labels, labelled.unseen)
        part, results_part = accuracy_results(
            "class_name", named, labelled.labels, labelled.unseen, positions
        )
        scores, queries = scores | part, queries | results_part
    if labelled.attributes is not None:
        part, results_part = attribute_scores(model, labelled, image, positions)
        scores, queries = scores | part, queries | results_part
    return scores, queries
