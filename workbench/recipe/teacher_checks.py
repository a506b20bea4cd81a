"""Refuses settings of teachers and captions that contradict one another. Imports no torch."""

from typing import TYPE_CHECKING

from workbench.errors import SettingError
from workbench.recipe.schema import CrossModal, Training

if TYPE_CHECKING:
    from workbench.recipe.recipe import Recipe

# Settings of one kind of cross-modal teacher alone.
PUBLISHED = ("caption_pairing", "target", "pooling_temperature", "clusters", "rotary", "weigh_regions")
GROUNDED = ("matching", "hard_negatives")
CONDENSED = ("queries",)
MEANINGLESS = {"text_conditioned": PUBLISHED + CONDENSED, "condensed": PUBLISHED + GROUNDED}  # by interaction


def check_caption_shares(recipe: "Recipe") -> None:
    """Raise SettingError for shares of caption columns that nothing can be drawn by, or with hard
    negatives."""
    shares = recipe.data.caption_column
    if isinstance(shares, str):
        return
    if not sum(shares.values()) > 0:
        problem, remedy = "the sum of the shares is 0", "Use {caption: 0.7, synthetic: 0.3}, for example."
        raise SettingError("data.caption_column", shares, problem, remedy)
    if recipe.training.hard_negatives or recipe.cross_modal.hard_negatives:
        problem = "hard negatives choose captions that have a false form, whatever their column"
        remedy = "Name one column, or use training.hard_negatives=0 and cross_modal.hard_negatives=0."
        raise SettingError("data.caption_column", shares, problem, remedy)


def check_teachers(recipe: "Recipe") -> None:
    """Raise SettingError unless there is one teacher, or a list of teachers that the recipe can use."""
    if recipe.teachers is None:
        return
    models = [teacher.model for teacher in recipe.teachers]
    problem = remedy = None
    if not models:
        problem, remedy = "the list is empty", "Name at least one teacher, or use null."
    elif recipe.teacher is not None:
        problem = f"there is also teacher.model = {recipe.teacher.model!r}"
        remedy = "Use teacher=null with `teachers`, or teachers=null with `teacher`."
    elif models.count("python") > 1:
        problem = "only one object can be given to `workbench.train`"
        remedy = "Use `python` once, for an object that answers for all of them."
    elif recipe.trains == "cross_modal_teacher" or recipe.objectives.cross_modal:
        problem = "a cross-modal teacher has the towers of one teacher"
        remedy = "Use `teacher`, or objectives.cross_modal=0."
    if problem and remedy:
        raise SettingError("teachers", models, problem, remedy)


def check_given(recipe: "Recipe", given: object = None) -> None:
    """Raise SettingError unless an object is given exactly if a teacher's model is `python`."""
    models = {f"{name}.model": teacher.model for name, teacher in recipe.named_teachers.items()}
    python = [setting for setting, model in models.items() if model == "python"]
    if bool(python) == (given is not None):
        return
    if python:
        problem = "no object was given, and only this process could have it"
        remedy = "Call `workbench.train(recipe, folder, teacher=OBJECT)` in Python."
        raise SettingError(python[0], "python", problem, remedy)
    problem = "the object that was given is not this model"
    remedy = "Use teacher.model=python with `workbench.train(recipe, folder, teacher=OBJECT)`, or neither."
    setting, value = next(iter(models.items()), ("teacher", None))
    raise SettingError(setting, value, problem, remedy)


def check_relations(recipe: "Recipe") -> None:
    """Raise SettingError for settings that cannot be combined with a student that has relations."""
    run = recipe.student.relations
    if run is None:
        return
    from workbench.objectives.registry import declared_objectives

    problem = remedy = None
    if recipe.student.trainable_text:
        problem = "its text tower takes over the teacher's reading of words, and cannot learn"
        remedy = "Use student.trainable_text=false."
    if recipe.training.compile:
        problem, remedy = "its image tower is not run as a whole", "Use training.compile=false."
    for name in recipe.objectives.weights():
        if declared_objectives()[name].needs == "teacher" and name != "cross_modal":
            problem = f"objectives.{name} compares the student with a teacher that has no relations"
            remedy = f"Use objectives.{name}=0."
    if recipe.objectives.cross_modal and recipe.cross_modal.run != run:
        problem = f"the student learns from another teacher, cross_modal.run = {recipe.cross_modal.run}"
        remedy = f"Use cross_modal.run={run}, or objectives.cross_modal=0."
    elif recipe.objectives.cross_modal and recipe.cross_modal.control == "null":
        problem = "the control null has no regions, and so no relations"
        remedy = "Use cross_modal.control=none or shuffled_regions."
    if problem and remedy:
        raise SettingError("student.relations", run, problem, remedy)


def check_cross_modal(recipe: "Recipe") -> None:
    """Raise SettingError for settings of a cross-modal teacher that cannot work, or have no meaning."""
    settings = recipe.cross_modal
    if settings.epoch is not None and settings.epoch > settings.epochs and settings.run is None:
        problem = f"the teacher is trained for {settings.epochs} epochs"
        raise SettingError("cross_modal.epoch", settings.epoch, problem, f"Use at most {settings.epochs}.")
    for setting in MEANINGLESS.get(settings.interaction, GROUNDED + CONDENSED):
        value, usual = getattr(settings, setting), CrossModal.model_fields[setting].default
        wanted = False if setting == "weigh_regions" else usual
        if value != wanted:
            problem = f"it has no meaning with cross_modal.interaction={settings.interaction}"
            raise SettingError(f"cross_modal.{setting}", value, problem, f"Leave it at {wanted}.")
    check_text_only(settings)
    if recipe.trains == "student":
        return
    if recipe.teacher is None:
        problem = "a cross-modal teacher needs frozen towers, and there are none"
        raise SettingError("teacher", None, problem, "Set teacher.model.")
    if settings.control == "null":
        problem = "the control null is the caption's own embedding and has nothing to learn"
        remedy = "Use none, text_only or shuffled_regions."
        raise SettingError("cross_modal.control", "null", problem, remedy)
    defaults = Training()
    for name, setting in (("epochs", "epochs"), ("steps", "epochs"), ("batch", "batch"), ("lr", "lr")):
        value = getattr(recipe.training, name)
        if value != getattr(defaults, name):
            problem = f"the cross-modal teacher uses cross_modal.{setting} instead"
            raise SettingError(f"training.{name}", value, problem, f"Set cross_modal.{setting}.")


def check_text_only(settings: CrossModal) -> None:
    """Raise SettingError where the teacher would have neither words nor regions to pool."""
    if settings.control == "text_only" and settings.interaction in MEANINGLESS:
        problem = f"a teacher with cross_modal.interaction={settings.interaction} pools regions alone"
        raise SettingError("cross_modal.control", "text_only", problem, "Use none or shuffled_regions.")
