"""Recipes: the complete, checked settings of an experiment, from YAML and overrides. Imports no torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from workbench.errors import SettingError
from workbench.files import atomic_write, is_file_name, sha256_of_json
from workbench.objectives.registry import declared_objectives
from workbench.recipe.flat_settings import flat
from workbench.recipe.model_sections import Section, Student, Teacher, WeightedTeacher
from workbench.recipe.overrides import set_by_path, suggestion, to_setting_error
from workbench.recipe.plain_values import check_plain, leaves, tidy
from workbench.recipe.schema import (
    Concepts,
    CrossModal,
    Data,
    Evaluation,
    Objectives,
    Regions,
    Targets,
    TextTeacher,
    Training,
)
from workbench.recipe.setting_types import IF_CHANGED, NOT_FINGERPRINTED
from workbench.recipe.teacher_checks import (
    check_caption_shares,
    check_cross_modal,
    check_relations,
    check_teachers,
)
from workbench.recipe.yaml_io import read_yaml, write_yaml

MOST_BASES = 32  # the longest chain of recipes that extend one another
RECIPES = Path(__file__).parent / "recipes"


class Recipe(Section):
    """The settings of an experiment: data, models, targets, objectives, training and evaluation. Immutable.

    `trains` is the student, or the cross-modal teacher of other recipes' students, whose epochs, batch and
    learning rate are in `cross_modal`. `teachers` names several teachers with a weight each in place of the
    one `teacher`.
    """

    name: str = Field(json_schema_extra=NOT_FINGERPRINTED)
    description: str = Field(default="", json_schema_extra=NOT_FINGERPRINTED)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    allow_download: bool = Field(default=False, json_schema_extra=NOT_FINGERPRINTED)
    trains: Literal["student", "cross_modal_teacher"] = "student"
    data: Data = Data()
    student: Student
    teacher: Teacher | None = None
    teachers: Annotated[tuple[WeightedTeacher, ...], Field(strict=False)] | None = Field(
        default=None, json_schema_extra=IF_CHANGED
    )
    text_teacher: TextTeacher | None = None
    targets: Targets = Targets()
    concepts: Concepts = Concepts()
    regions: Regions = Regions()
    cross_modal: CrossModal = CrossModal()
    objectives: Objectives = Objectives()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _settings_agree(self) -> "Recipe":
        weights, training = self.objectives.weights(), self.training
        shares = self.data.val_share + self.data.test_share
        if shares >= 1:
            problem = f"together with data.val_share it is {shares:g}, which leaves no pairs for training"
            remedy = "Use shares whose sum is below 1."
            raise SettingError("data.test_share", self.data.test_share, problem, remedy)
        if not is_file_name(self.name):
            problem = "runs are named after the recipe, and this is not a valid file name"
            remedy = f"Use letters, digits, - and _, e.g. {tidy(self.name)}."
            raise SettingError("name", self.name, problem, remedy)
        check_caption_shares(self)
        check_teachers(self)
        check_cross_modal(self)
        check_relations(self)
        if not weights:
            remedy = "Give one a weight, e.g. objectives.task=1"
            raise SettingError("objectives", "all 0", "there is nothing to learn from", remedy)
        for name, weight in weights.items():
            needed = declared_objectives()[name].needs
            given = self.named_teachers if needed == "teacher" else needed and getattr(self, needed)
            if needed is not None and not given:
                problem = f"it needs a {needed.replace('_', ' ')}, and there is none"
                remedy = f"Set {needed}.model, or objectives.{name}=0."
                raise SettingError(f"objectives.{name}", weight, problem, remedy)
        if training.micro_batch is not None and training.micro_batch > training.batch:
            remedy = f"Use at most {training.batch}, or null."
            raise SettingError(
                "training.micro_batch", training.micro_batch, "it is larger than training.batch", remedy
            )
        if training.max_forgotten is not None and not self.evaluation.during_training:
            problem = "nothing is measured by which a student could be seen to forget"
            remedy = "Name a zero-shot set in evaluation.during_training."
            raise SettingError("training.max_forgotten", training.max_forgotten, problem, remedy)
        if training.steps is not None and training.warmup_steps > training.steps:
            problem = f"warm-up would be longer than the {training.steps} steps of the training"
            raise SettingError(
                "training.warmup_steps", training.warmup_steps, problem, f"Use at most {training.steps}."
            )
        if abs(sum(training.direction_weights) - 1) > 1e-6:
            raise SettingError(
                "training.direction_weights",
                list(training.direction_weights),
                "their sum is not 1",
                "Use [0.5, 0.5], for example.",
            )
        if (training.loss_chunk or training.loss_ring) and training.direction_weights != (0.5, 0.5):
            raise SettingError(
                "training.direction_weights",
                list(training.direction_weights),
                "training.loss_chunk and training.loss_ring need equal weights of both directions",
                "Use [0.5, 0.5], or training.loss_chunk=null and training.loss_ring=false.",
            )
        if training.hard_negatives:
            changes = {
                "a weight for objectives.task, whose negatives they are": not self.objectives.task,
                "training.loss_chunk=null": training.loss_chunk is not None,
                "training.loss_ring=false": training.loss_ring,
            }
            for change in (change for change, wanted in changes.items() if wanted):
                problem = "the task loss compares them in one matrix with the whole batch"
                remedy = f"Use 0, or {change}."
                raise SettingError("training.hard_negatives", training.hard_negatives, problem, remedy)
        whole = [name for name in weights if declared_objectives()[name].reach == "batch"]
        if training.loss_ring and whole:
            problem = f"objectives.{whole[0]} needs the whole batch in every process"
            remedy = f"Use training.loss_ring=false, or objectives.{whole[0]}=0."
            raise SettingError("training.loss_ring", True, problem, remedy)
        if self.data.order == "shards" and (self.data.decoded or self.student.cache_frozen):
            setting = "data.decoded" if self.data.decoded else "student.cache_frozen"
            problem = f"with {setting} the shards are read only once, so their order does not matter"
            raise SettingError("data.order", "shards", problem, "Use shuffled.")
        if self.student.cache_frozen:
            for setting, value, required in (
                ("training.augmentation.crop_scale", training.augmentation.crop_scale, (1.0, 1.0)),
                ("objectives.mfd", self.objectives.mfd, 0.0),
                ("data.decoded", self.data.decoded, None),
            ):
                if value != required:
                    problem = "student.cache_frozen stores the output of frozen layers for whole pictures"
                    remedy = f"Use {required}, or student.cache_frozen=false."
                    raise SettingError(setting, value, problem, remedy)
        if self.student.rotary_positions and self.student.trainable_image == "lora":
            problem = "it cannot be combined with student.trainable_image=lora"
            raise SettingError("student.rotary_positions", True, problem, "Use attention, or last_blocks.")
        for setting in ("compile", "gradient_checkpointing"):
            other = "student.cache_frozen" if self.student.cache_frozen else None
            if setting == "compile" and self.objectives.mfd:
                other = "objectives.mfd"
            if other and getattr(training, setting):
                problem = f"it cannot be combined with {other}, which runs only a part of a tower"
                remedy = f"Use training.{setting}=false, or do without {other}."
                raise SettingError(f"training.{setting}", True, problem, remedy)
        low, high = training.augmentation.crop_scale
        if low > high:
            raise SettingError(
                "training.augmentation.crop_scale",
                [low, high],
                "the smaller share must come first",
                f"Use [{high}, {low}].",
            )
        return self

    @classmethod
    def load(cls, name_or_path: str | Path, overrides: Mapping[str, object] | None = None) -> "Recipe":
        """Load a shipped recipe by name, or a YAML file by path, and apply dotted `overrides`.

        The value of an override may be text, which is converted to the type of the setting (`"1e-4"`,
        `"null"`). Raises SettingError for an unknown recipe or setting, suggesting similar names, and for an
        unusable value.
        """
        return cls.from_settings(_read(_locate(str(name_or_path)), ()), overrides)

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], overrides: Mapping[str, object] | None = None
    ) -> "Recipe":
        """Make a recipe from nested settings and the defaults, with `overrides` as in `load`."""
        tree: dict[str, Any] = {}
        for key, value in settings.items():
            set_by_path(tree, cls, str(key), value)
        for key, value in (overrides or {}).items():
            set_by_path(tree, cls, key, value, text=True)
        for key, value in leaves(tree):
            check_plain(key, value)
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise to_setting_error(error.errors()[0], cls, tree) from None

    @classmethod
    def names(cls) -> list[str]:
        """The names of the shipped recipes."""
        return sorted(path.stem for path in RECIPES.rglob("*.yaml"))

    @property
    def named_teachers(self) -> dict[str, Teacher]:
        """The image-text teachers by the name of their section: `teacher`, or `teachers.0` and so on."""
        if self.teacher is not None:
            return {"teacher": self.teacher}
        return {f"teachers.{number}": teacher for number, teacher in enumerate(self.teachers or ())}

    @property
    def caption_objectives(self) -> list[str]:
        """The objectives in use that say nothing of a picture without a caption."""
        return [name for name in self.objectives.weights() if not declared_objectives()[name].images_alone]

    def data_options(self, train: bool = True) -> dict[str, Any]:
        """The keyword arguments of `load_pairs` for its data, with or without captions as it needs them."""
        needed = self.trains != "student" or bool(self.caption_objectives)
        return self.data.options(train) | {"captions_needed": needed}

    @property
    def fingerprint(self) -> str:
        """The hexadecimal sha256 of all settings that change the outcome."""
        return sha256_of_json(dict(flat(self, aside=False, later=False)))

    def to_yaml(self) -> str:
        """All settings, defaults included, as YAML that `load` reads."""
        return write_yaml(self.model_dump(mode="json"))

    def save(self, path: str | Path) -> None:
        """Write `to_yaml()` to a file, atomically."""
        with atomic_write(Path(path), "w") as stream:
            stream.write(self.to_yaml())


def _locate(name: str) -> Path:
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or path.name != name:
        if not path.is_file():
            raise SettingError(
                "recipe", name, "there is no such file", "Give a YAML file or the name of a shipped recipe."
            )
        return path
    shipped = {recipe.stem: recipe for recipe in RECIPES.rglob("*.yaml")}
    if name not in shipped:
        raise SettingError("recipe", name, "no recipe of this name is shipped", suggestion(name, shipped))
    return shipped[name]


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The settings in a YAML file, merged over those of the recipe that it `extends`."""
    try:
        settings = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(
            "recipe", str(path), f"it cannot be read ({error.strerror})", "Give a file that you may read."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(
            "recipe", str(path), f"this is not a YAML file ({' '.join(str(error).split())})", "Fix the file."
        ) from None
    if not isinstance(settings, dict):
        raise SettingError(
            "recipe",
            str(path),
            "it holds no settings",
            "Add lines such as `name: mine`, see `workbench show NAME`.",
        )
    base = settings.pop("extends", None)
    tree: dict[str, Any] = {"name": path.stem}
    if base is not None:
        local = path.parent / str(base)
        origin = local if local.suffix in (".yaml", ".yml") and local.is_file() else _locate(str(base))
        if origin.resolve() in (*seen, path.resolve()) or len(seen) > MOST_BASES:
            raise SettingError(
                "extends", str(base), f"{path.name} would extend itself", "Extend another recipe."
            )
        tree = {**_read(origin, (*seen, path.resolve())), **tree}
    for key, value in settings.items():
        set_by_path(tree, Recipe, str(key), value)
    return tree
