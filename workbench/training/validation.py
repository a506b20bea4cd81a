"""Looks at the student while it trains: recall on the validation split, zero-shot accuracy on small sets."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import nn

from workbench.data.labelled.labels import Labelled
from workbench.data.load import draw_rows
from workbench.data.pairs import Pairs
from workbench.evaluation.retrieval.metrics import retrieval_metrics
from workbench.evaluation.zero_shot.metrics import zero_shot_metrics, zero_shot_weights
from workbench.evaluation.zero_shot.sets import open_set, zero_shot_sets
from workbench.models.dual_encoder import DualEncoder
from workbench.recipe import Recipe
from workbench.training.session import Session
from workbench.training.shared_encoding import (
    encode_images_together,
    encode_texts_together,
    encode_together,
)

TOP1 = "zero_shot_top1"  # recorded as zero_shot_top1/SET


def validation_sets(recipe: Recipe) -> dict[str, Labelled]:
    """The sets of `evaluation.during_training` by name, at most `training.validation_pairs` pictures of each.

    Raises SettingError where there is no such set.
    """
    most, sets = recipe.training.validation_pairs, {}
    for name, source in zero_shot_sets(recipe, [], "during_training").items():
        labelled = open_set(recipe, source, "during_training").for_testing()
        if most is not None and most < len(labelled):
            labelled = labelled.select(draw_rows(len(labelled), most, recipe.seed))
        sets[name] = labelled
    return sets


def validate(
    session: Session,
    wrapped: nn.Module,
    student: DualEncoder,
    validation: Pairs,
    sets: Mapping[str, Labelled],
    epoch: float,
) -> dict[str, float]:
    """Record recall on the validation split and the top-1 accuracy on every set, and return the accuracies.

    Every process embeds a part; the first ranks, and only it has accuracies to return.
    """
    wrapped.eval()
    student.precision = session.recipe.training.precision
    recalls: dict[str, float] = {}
    if len(validation.all_captions):  # else there is nothing to find pictures by
        embedded = encode_together(session, student, validation)
        if embedded is not None:
            scores = retrieval_metrics(
                embedded.image, embedded.text, embedded.image_of_text, average_precision=False
            )
            recalls = {f"text_to_image_r{k}": value for k, value in scores.text_to_image.recall.items()}
            recalls |= {f"image_to_text_r{k}": value for k, value in scores.image_to_text.recall.items()}
    accuracies = {}
    for name, labelled in sets.items():
        if (accuracy := _top1(session, student, labelled)) is not None:
            accuracies[name] = accuracy
    recorded = recalls | {f"{TOP1}/{name}": accuracy for name, accuracy in accuracies.items()}
    if session.logger is not None and recorded:
        session.logger.record("validation", session.logger.step, epoch=epoch, **recorded)
    session.wait()
    return accuracies


def _top1(session: Session, student: DualEncoder, labelled: Labelled) -> float | None:
    prompts = [prompt for of_class in labelled.prompts() for prompt in of_class]
    images = encode_images_together(session, student, labelled.pairs)
    texts = encode_texts_together(session, student, prompts)
    if images is None or texts is None:
        return None
    weights = zero_shot_weights(texts.view(len(labelled.class_names), len(labelled.templates), -1))
    image, rows = images
    return zero_shot_metrics(image, weights, labelled.labels[rows], labelled.class_names).top1


def forgotten(session: Session, start: Mapping[str, float], now: Mapping[str, float]) -> str | None:
    """Why the run is to stop: the set on which more than `training.max_forgotten` points of top-1 accuracy
    are lost since the `start`; None where none is. The same in every process."""
    most, reason = session.recipe.training.max_forgotten, None
    if most is None:
        return None
    for name, accuracy in now.items():
        if 100 * (start[name] - accuracy) > most:
            reason = (
                f"stopped: zero-shot top-1 on {name} fell from {100 * start[name]:.1f} to "
                f"{100 * accuracy:.1f} %, by more than training.max_forgotten = {most:g} points"
            )
    if reason and session.logger is not None:
        session.logger.info(reason)
    reasons = [reason]
    if session.world > 1:
        dist.broadcast_object_list(reasons, device=torch.device(session.device))
    return reasons[0]
