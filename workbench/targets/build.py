"""All targets of a recipe, i.e. what its teachers say about its training pairs, as one object."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workbench.data.pairs import Pairs
from workbench.models.dual_encoder import DualEncoder
from workbench.recipe import Recipe
from workbench.targets.cross_modal import AnyTeacher, cross_modal_inputs, cross_modal_targets, whole_views
from workbench.targets.decoded_cache import decoded_pairs
from workbench.targets.frozen_maps import mapped_pairs
from workbench.targets.image_text import Teacher, compute_targets, load_teacher
from workbench.targets.store import TargetStore
from workbench.targets.text_teacher import TextTeacherTargets, text_teacher_targets


class TrainingTargets(NamedTuple):
    """What the teachers say, by row of the picture and by position of the caption among all captions.

    `image_text`: the image-text teacher's embeddings, with its `width`, its `scale`, and where its weights
    came from; `text`: the language model's embeddings and concepts; `cross_modal` [T, D]: the cross-modal
    teacher's embeddings of the pairs. What the recipe has no teacher for is None. `student_text_is_known`:
    the student's text tower is the teacher's. `unreadable`: rows of pictures that cannot be read, and why.
    """

    image_text: TargetStore | None = None
    weights_from: str | None = None
    width: int | None = None
    scale: float | None = None
    text: TextTeacherTargets | None = None
    cross_modal: np.ndarray | None = None
    student_text_is_known: bool = False
    unreadable: dict[int, str] = {}  # noqa: RUF012  a NamedTuple's default


def build_targets(
    recipe: Recipe,
    pairs: Pairs,
    student: DualEncoder,
    folder: Path,
    cross_modal_teacher: tuple[Recipe, AnyTeacher] | None = None,
    *,
    wait: Callable[[], object] = lambda: None,
    device: Any = "cpu",
    rank: int = 0,
    world: int = 1,
) -> TrainingTargets:
    """Compute, continue or open every target of a recipe; `world` processes fill them together.

    `folder` is the run's, for what is fitted on the targets. `cross_modal_teacher` is the trained one with
    its recipe, for recipes that learn from it. `wait` lets a process wait for the others. Raises SettingError
    as the single targets do.
    """
    share: dict[str, Any] = {"device": device, "rank": rank, "world": world}
    targets = TrainingTargets()
    if recipe.teacher is not None:
        teacher = load_teacher(recipe)
        store = compute_targets(recipe, pairs, teacher, **share)
        targets = targets._replace(
            image_text=store,
            weights_from=teacher.model.weights_from,
            width=teacher.dim,
            scale=teacher.scale,
            student_text_is_known=student.text_digest() == teacher.model.text_digest(),
            unreadable=store.bad_rows["image"],
        )
        if recipe.objectives.cross_modal:
            values = _cross_modal(recipe, pairs, teacher, cross_modal_teacher, share)
            targets = targets._replace(cross_modal=values)
    return targets._replace(
        text=text_teacher_targets(recipe, pairs, folder / "knowledge", wait=wait, **share)
    )


def cached_pairs(
    recipe: Recipe, pairs: Pairs, student: DualEncoder, *, device: Any = "cpu", rank: int = 0, world: int = 1
) -> Pairs:
    """The pairs, read from what the recipe keeps of their pictures: pixels that were decoded once, or feature
    maps of the student's frozen layers."""
    pairs = decoded_pairs(recipe, pairs, rank=rank, world=world)
    return mapped_pairs(recipe, pairs, student, device=device, rank=rank, world=world)


def _cross_modal(
    recipe: Recipe,
    pairs: Pairs,
    teacher: Teacher,
    trained: tuple[Recipe, AnyTeacher] | None,
    share: dict[str, Any],
) -> np.ndarray:
    """The null teacher is the caption's own embedding."""
    if recipe.cross_modal.control == "null":
        return np.asarray(compute_targets(whole_views(recipe), pairs, teacher, **share).column("text"))
    if trained is None:
        raise ValueError("the recipe learns from a cross-modal teacher, and none was given")
    settings, cross_modal_teacher = trained
    update = {"regions": settings.regions, "cross_modal": settings.cross_modal}
    inputs = cross_modal_inputs(recipe.model_copy(update=update), pairs, teacher, **share)
    return cross_modal_targets(inputs, cross_modal_teacher, rank=share["rank"], world=share["world"])
