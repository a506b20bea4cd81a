"""Refuses impossible settings before any target is computed, and too many unreadable pairs later."""

from collections.abc import Mapping

from workbench.data.source import Rejected
from workbench.errors import SettingError
from workbench.models.depth import layer_factors
from workbench.models.dual_encoder import DualEncoder
from workbench.models.masking import patch_grid
from workbench.recipe import Recipe
from workbench.training.optimisation import check_multipliers, check_pairs


def check_world(recipe: Recipe, world: int) -> None:
    """Raise SettingError if the processes cannot share a batch evenly."""
    if recipe.training.batch % world:
        problem = f"{world} processes cannot share it"
        raise SettingError("training.batch", recipe.training.batch, problem, f"a multiple of {world}")


def check_student(recipe: Recipe, student: DualEncoder, pairs: int, world: int) -> None:
    """Raise SettingError for settings that do not fit this student or so few pairs."""
    check_pairs(recipe, pairs, world)
    check_micro_batch(recipe, student)
    check_multipliers(student.clip, recipe.training.lr_multipliers)
    if recipe.training.layer_decay:
        layer_factors(student.clip, recipe.training.layer_decay)  # refuses a tower without layers
    if recipe.objectives.mfd:
        patch_grid(student)  # refuses a tower without patches to mask


def check_micro_batch(recipe: Recipe, student: DualEncoder) -> None:
    """Raise SettingError if micro-batches would not give the gradient of the batch."""
    size = recipe.training.micro_batch
    if size and size < recipe.training.batch and student.trains_batch_statistics:
        raise SettingError(
            "training.micro_batch",
            size,
            "the student has BatchNorm, whose statistics would be those of a micro-batch",
            "null, or freeze those modules (student.frozen)",
        )


def check_failures(failed: Mapping[str, str], pairs: int, recipe: Recipe) -> None:
    """Raise SettingError if more pairs were unreadable than the recipe accepts. `failed` maps ids to
    reasons."""
    if len(failed) > recipe.data.max_failed * pairs:
        reasons = Rejected()
        for identity, reason in failed.items():
            reasons.note(reason, identity)
        raise SettingError(
            "data.max_failed",
            recipe.data.max_failed,
            f"{len(failed)} of {pairs} pairs could not be read ({reasons.described()})",
            "Fix them, or raise it",
        )
