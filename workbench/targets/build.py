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
from workbench.models.frozen_encoder import PYTHON, Side
from workbench.models.tokens import CutCaptions, cut_captions
from workbench.models.trainable import trainable_parameters
from workbench.objectives.ensemble import Member
from workbench.recipe import Recipe
from workbench.recipe.teacher_checks import check_given, check_text_only
from workbench.targets.cached import Share
from workbench.targets.cross_modal import AnyTeacher, cross_modal_inputs, cross_modal_targets, whole_views
from workbench.targets.decoded_cache import decoded_pairs
from workbench.targets.false_captions import FalseTargets
from workbench.targets.frozen_maps import mapped_pairs
from workbench.targets.image_text import Teacher, compute_targets, load_teacher
from workbench.targets.store import TargetStore
from workbench.targets.text_teacher import TextTeacherTargets, embed_captions, text_teacher_targets

SAME_START = 1e-4  # of the cosine: devices and thread counts round otherwise


class TeacherTargets(NamedTuple):
    """What an image-text teacher says, and what the losses need to know of it. `scale` multiplies its
    cosines, `weight` is its share among several teachers, `weights_from` where its weights came from, and
    `object` the fingerprint of an object that was given."""

    store: TargetStore
    width: int
    sides: tuple[Side, ...]
    scale: float
    bias: float | None
    weight: float
    weights_from: str | None
    object: str | None


class TrainingTargets(NamedTuple):
    """What the teachers say, by row of the picture and by position of the caption among all captions.

    `teachers`: the image-text teachers' embeddings; `text`: the language model's embeddings and concepts;
    `cross_modal` [T, D]: the cross-modal teacher's embeddings of the pairs. What the recipe has no teacher
    for is empty or None. `student_texts`: the embeddings of a teacher whose text tower is the student's.
    `captions`: which pictures have any. `cut`: captions longer than a model's context, by what the model is.
    `unreadable`: rows of pictures that cannot be read, and why. `false`: captions that are nearly true, where
    the student's task has hard negatives, with embeddings where its text tower is a teacher's and stays so.
    """

    teachers: tuple[TeacherTargets, ...] = ()
    text: TextTeacherTargets | None = None
    cross_modal: np.ndarray | None = None
    student_texts: TargetStore | None = None
    captions: Literal["all", "some", "none"] = "all"
    cut: dict[str, CutCaptions] = {}  # noqa: RUF012  a NamedTuple's default
    unreadable: dict[int, str] = {}  # noqa: RUF012
    false: FalseCaptions | None = None

    @property
    def weights_from(self) -> str | None:
        """Where the teachers' weights came from; None without teachers."""
        return "; ".join(teacher.weights_from for teacher in self.teachers if teacher.weights_from) or None

    @property
    def object(self) -> str | None:
        """The fingerprint of the object that `model: python` stands for, None without one."""
        return next((teacher.object for teacher in self.teachers if teacher.object), None)

    @property
    def members(self) -> list[Member]:
        """The widths, sides and weights of the image-text teachers."""
        return [Member(teacher.width, teacher.sides, teacher.weight) for teacher in self.teachers]


def build_targets(
    recipe: Recipe,
    pairs: Pairs,
    student: DualEncoder,
    folder: Path,
    cross_modal_teacher: tuple[Recipe, AnyTeacher] | None = None,
    *,
    given: Any = None,
    begun_with: str | None = None,
    device: Any = "cpu",
    **share: Unpack[Share],
) -> TrainingTargets:
    """Compute, continue or open every target of a recipe; `world` processes fill them together.

    `folder` is the run's, for what is fitted on the targets. `cross_modal_teacher` is the trained one with
    its recipe, for recipes that learn from it. `given` is the object that a model `python` stands for, and
    `begun_with` the fingerprint of the one with which the run began. Processes wait for each other by files
    alone, as long as it takes. Raises SettingError as the single targets do, and for another object.
    """
    targets = TrainingTargets(captions=_captions(pairs), cut={"student": cut_captions(student, pairs)})
    hard = bool(recipe.training.hard_negatives)
    teachers = _loaded(recipe, given, begun_with)
    while teachers:
        teacher = teachers.pop(0)  # and out of memory, once its targets are there
        if recipe.objectives.preservation:
            check_start(student, teacher, recipe)
        store = compute_targets(recipe, pairs, teacher, device=device, **share)
        facts = TeacherTargets(
            store,
            teacher.dim,
            teacher.sides,
            teacher.scale,
            teacher.bias,
            teacher.weight,
            teacher.model.weights_from,
            teacher.object,
        )
        targets = targets._replace(
            teachers=(*targets.teachers, facts),
            unreadable=targets.unreadable | store.bad_rows.get("image", {}),
        )
        if isinstance(teacher.model, DualEncoder):
            cut = {teacher.name: cut_captions(teacher.model, pairs)}
            targets = targets._replace(cut=targets.cut | cut)
            if targets.student_texts is None and student.text_digest() == teacher.model.text_digest():
                targets = targets._replace(student_texts=store)
                if hard and not trainable_parameters(student)["text"]:
                    false = FalseTargets(recipe, pairs, teacher, device=device, **share)
                    targets = targets._replace(false=false)
        if recipe.objectives.cross_modal:
            values = _cross_modal(recipe, pairs, teacher, cross_modal_teacher, device=device, **share)
            targets = targets._replace(cross_modal=values)
    if hard and targets.false is None:
        targets = targets._replace(false=FalseCaptions(pairs, recipe.seed))
    return targets._replace(
        text=text_teacher_targets(recipe, pairs, folder / "knowledge", device=device, **share)
    )


def _loaded(recipe: Recipe, given: Any, begun_with: str | None) -> list[Teacher]:
    """The teachers of a recipe, all of which can teach what it wants. Raises SettingError for an object that
    is another than the one of the run's first steps."""
    check_given(recipe, given)
    teachers = [load_teacher(recipe, given, name) for name in recipe.named_teachers]
    for teacher in teachers:
        if teacher.object and begun_with not in (None, teacher.object):
            problem = "this object answers otherwise than the one with which the run began"
            remedy = "Give that object again (a `fingerprint` of its own says it is), or use another folder."
            raise SettingError(f"{teacher.name}.model", PYTHON, problem, remedy)
    return teachers


def _captions(pairs: Pairs) -> Literal["all", "some", "none"]:
    """How many of the pictures have captions."""
    some = np.diff(pairs.first_caption) > 0
    return "all" if some.all() else "some" if some.any() else "none"


def teachers_answers(recipe: Recipe, **share: Unpack[Share]) -> Iterator[tuple[str, TargetStore]]:
    """The stores of what the teachers of a recipe say about its training pairs, by name, each when it is
    complete; SettingError for a recipe without a teacher."""
    if not recipe.named_teachers and recipe.text_teacher is None:
        remedy = "--set teacher.model=NAME, or another recipe."
        raise SettingError("teacher", None, f"{recipe.name} has no teacher to ask", remedy)
    check_given(recipe)
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)  # as training would: another number changes last bits
    data, device = recipe.data, device_of(recipe)
    pairs = load_pairs(data.source, data.train_split, **recipe.data_options())
    for teacher in [load_teacher(recipe, name=name) for name in recipe.named_teachers]:
        yield teacher.name, compute_targets(recipe, pairs, teacher, device=device, **share)
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
    check_text_only(cross_modal)
    update = {"regions": settings.regions, "cross_modal": cross_modal}
    inputs = cross_modal_inputs(recipe.model_copy(update=update), pairs, teacher, device=device, **share)
    return cross_modal_targets(inputs, cross_modal_teacher, **share)
