"""All targets of a recipe, i.e. what its teachers say about its training pairs, as one object."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np
import torch

from workbench.data.false_captions import FalseCaptions
from workbench.data.load import load_pairs
from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.models.devices import device_of
from workbench.models.dual_encoder import DualEncoder
from workbench.models.tokens import CutCaptions, cut_captions
from workbench.models.trainable import trainable_parameters
from workbench.recipe import Recipe
from workbench.targets.cached import Share
from workbench.targets.cross_modal import AnyTeacher, cross_modal_inputs, cross_modal_targets, whole_views
from workbench.targets.decoded_cache import decoded_pairs
from workbench.targets.false_captions import FalseTargets
from workbench.targets.frozen_maps import mapped_pairs
from workbench.targets.image_text import Teacher, compute_targets, load_teacher
from workbench.targets.store import TargetStore
from workbench.targets.text_teacher import TextTeacherTargets, embed_captions, text_teacher_targets

SAME_START = 1e-4  # of the cosine: devices and thread counts round otherwise


class TrainingTargets(NamedTuple):
    """What the teachers say, by row of the picture and by position of the caption among all captions.

    `image_text`: the image-text teacher's embeddings, with its `width`, `scale` and `bias`, and where its
    weights came from; `text`: the language model's embeddings and concepts; `cross_modal` [T, D]: the
    cross-modal teacher's embeddings of the pairs. What the recipe has no teacher for is None.
    `student_text_is_known`: the student's text tower is the teacher's. `captions`: which pictures have
    any. `cut`: captions longer than a model's context, by what the model is. `unreadable`: rows of pictures
    that cannot be read, and why. `false`: captions that are nearly true, where the student's task has hard
    negatives, with embeddings where its text tower is the teacher's and stays so.
    """

    image_text: TargetStore | None = None
    weights_from: str | None = None
    width: int | None = None
    scale: float | None = None
    bias: float | None = None
    text: TextTeacherTargets | None = None
    cross_modal: np.ndarray | None = None
    student_text_is_known: bool = False
    captions: Literal["all", "some", "none"] = "all"
    cut: dict[str, CutCaptions] = {}  # noqa: RUF012  a NamedTuple's default
    unreadable: dict[int, str] = {}  # noqa: RUF012
    false: FalseCaptions | None = None


def build_targets(
    recipe: Recipe,
    pairs: Pairs,
    student: DualEncoder,
    folder: Path,
    cross_modal_teacher: tuple[Recipe, AnyTeacher] | None = None,
    *,
    given: Any = None,
    device: Any = "cpu",
    **share: Unpack[Share],
) -> TrainingTargets:
    """Compute, continue or open every target of a recipe; `world` processes fill them together.

    `folder` is the run's, for what is fitted on the targets. `cross_modal_teacher` is the trained one with
    its recipe, for recipes that learn from it. `given` is the object that `teacher.model: python` stands
    for. Processes wait for each other by files alone, as long as it takes. Raises SettingError as the single
    targets do.
    """
    targets = TrainingTargets(captions=_captions(pairs), cut={"student": cut_captions(student, pairs)})
    hard = bool(recipe.training.hard_negatives)
    if recipe.teacher is not None:
        teacher = load_teacher(recipe, given)
        if recipe.objectives.preservation:
            check_start(student, teacher, recipe)
        store = compute_targets(recipe, pairs, teacher, device=device, **share)
        targets = targets._replace(
            image_text=store,
            weights_from=teacher.model.weights_from,
            width=teacher.dim,
            scale=teacher.scale,
            bias=teacher.bias,
            unreadable=store.bad_rows.get("image", {}),
        )
        if isinstance(teacher.model, DualEncoder):
            targets = targets._replace(
                cut={**targets.cut, "teacher": cut_captions(teacher.model, pairs)},
                student_text_is_known=student.text_digest() == teacher.model.text_digest(),
            )
        if recipe.objectives.cross_modal:
            values = _cross_modal(recipe, pairs, teacher, cross_modal_teacher, device=device, **share)
            targets = targets._replace(cross_modal=values)
        if hard and targets.student_text_is_known and not trainable_parameters(student)["text"]:
            targets = targets._replace(false=FalseTargets(recipe, pairs, teacher, device=device, **share))
    if hard and targets.false is None:
        targets = targets._replace(false=FalseCaptions(pairs, recipe.seed))
    return targets._replace(
        text=text_teacher_targets(recipe, pairs, folder / "knowledge", device=device, **share)
    )


def _captions(pairs: Pairs) -> Literal["all", "some", "none"]:
    """How many of the pictures have captions."""
    some = np.diff(pairs.first_caption) > 0
    return "all" if some.all() else "some" if some.any() else "none"


def teachers_answers(recipe: Recipe, **share: Unpack[Share]) -> Iterator[tuple[str, TargetStore]]:
    """The stores of what the teachers of a recipe say about its training pairs, by name, each when it is
    complete; SettingError for a recipe without a teacher."""
    if recipe.teacher is None and recipe.text_teacher is None:
        remedy = "--set teacher.model=NAME, or another recipe."
        raise SettingError("teacher", None, f"{recipe.name} has no teacher to ask", remedy)
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)  # as training would: another number changes last bits
    data, device = recipe.data, device_of(recipe)
    pairs = load_pairs(data.source, data.train_split, **recipe.data_options())
    if recipe.teacher is not None:
        teacher = load_teacher(recipe)
        yield "teacher", compute_targets(recipe, pairs, teacher, device=device, **share)
        if recipe.trains == "cross_modal_teacher" or recipe.objectives.cross_modal:
            inputs = cross_modal_inputs(recipe, pairs, teacher, device=device, **share)
            yield "regions", inputs.regions.embeddings
            yield "words", inputs.tokens.store
    captions = embed_captions(recipe, pairs, device=device, **share)
    if captions is not None:
        yield "language model", captions


def check_start(student: DualEncoder, teacher: Teacher, recipe: Recipe) -> None:
    """SettingError where the student's image tower does not start as the teacher's, which `preservation`
    holds it to: it must see a picture of noise as the teacher does."""
    noise = torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    training = student.training
    embeddings = []
    for model in (student.eval(), teacher.model):
        picture = model.transform(noise)[None]
        embeddings.append(torch.nn.functional.normalize(model.embed_images(picture), dim=-1))
    student.train(training)
    ours, theirs = embeddings
    if ours.shape != theirs.shape or float((ours * theirs).sum()) < 1 - SAME_START:
        problem = "it holds the student to where it started, and it does not start as the teacher"
        remedy = "Give student and teacher one model and weights, or set it to 0."
        raise SettingError("objectives.preservation", recipe.objectives.preservation, problem, remedy)


def cached_pairs(
    recipe: Recipe, pairs: Pairs, student: DualEncoder, *, device: Any = "cpu", **share: Unpack[Share]
) -> Pairs:
    """The pairs, read from what the recipe keeps of their pictures: pixels that were decoded once, or feature
    maps of the student's frozen layers."""
    pairs = decoded_pairs(recipe, pairs, **share)
    return mapped_pairs(recipe, pairs, student, device=device, **share)


def _cross_modal(
    recipe: Recipe,
    pairs: Pairs,
    teacher: Teacher,
    trained: tuple[Recipe, AnyTeacher] | None,
    *,
    device: Any,
    **share: Unpack[Share],
) -> np.ndarray:
    """The caption's own embedding, for the control `null`."""
    if recipe.cross_modal.control == "null":
        return np.asarray(
            compute_targets(whole_views(recipe), pairs, teacher, device=device, **share).column("text")
        )
    if trained is None:
        raise ValueError("the recipe learns from a cross-modal teacher, and none was given")
    settings, cross_modal_teacher = trained
    # A teacher that was trained with its own regions may be asked without them, or with others.
    control = settings.cross_modal.control if recipe.cross_modal.run is None else recipe.cross_modal.control
    cross_modal = settings.cross_modal.model_copy(update={"control": control})
    update = {"regions": settings.regions, "cross_modal": cross_modal}
    inputs = cross_modal_inputs(recipe.model_copy(update=update), pairs, teacher, device=device, **share)
    return cross_modal_targets(inputs, cross_modal_teacher, **share)
