"""What an experiment is: recipes, from YAML and overrides, checked as a whole. Imports no torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from workbench.errors import SettingError
from workbench.files import atomic_write, is_file_name, sha256_of_json
from workbench.objectives.registry import declared_objectives
from workbench.recipe.overrides import set_by_path, suggestion, to_setting_error
from workbench.recipe.plain_values import check_plain, leaves, tidy
from workbench.recipe.schema import (
    Concepts,
    CrossModal,
    Data,
    Evaluation,
    Model,
    Objectives,
    Regions,
    Section,
    Student,
    Targets,
    TextTeacher,
    Training,
)
from workbench.recipe.setting_types import NOT_FINGERPRINTED
from workbench.recipe.yaml_io import read_yaml, write_yaml

MOST_BASES = 32  # recipes that extend one another
RECIPES = Path(__file__).parent / "recipes"


class Recipe(Section):
    """One experiment, complete: data, models, targets, objectives, training and evaluation. Immutable.

    `trains`: the student, or the cross-modal teacher that students of other recipes learn from; its length,
    batch and rate are those in `cross_modal`.
    """

    name: str = Field(json_schema_extra=NOT_FINGERPRINTED)
    description: str = Field(default="", json_schema_extra=NOT_FINGERPRINTED)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    allow_download: bool = Field(default=False, json_schema_extra=NOT_FINGERPRINTED)
    trains: Literal["student", "cross_modal_teacher"] = "student"
    data: Data = Data()
    student: Student
    teacher: Model | None = None
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
            problem = f"with data.val_share it is {shares:g} of the source, and nothing is left to train on"
            raise SettingError("data.test_share", self.data.test_share, problem, "Less than 1 together.")
        if not is_file_name(self.name):
            problem = "runs are named after it, and this is no file name"
            raise SettingError(
                "name", self.name, problem, f"Letters, digits, - and _, e.g. {tidy(self.name)}."
            )
        self._check_cross_modal()
        if not weights:
            remedy = "Give one a weight, e.g. objectives.task=1"
            raise SettingError("objectives", "all 0", "there is nothing to learn from", remedy)
        for name, weight in weights.items():
            needed = declared_objectives()[name].needs
            if needed is not None and getattr(self, needed) is None:
                problem = f"it needs a {needed.replace('_', ' ')}, and there is none"
                raise SettingError(
                    f"objectives.{name}", weight, problem, f"Set {needed}.model, or objectives.{name}=0"
                )
        if training.micro_batch is not None and training.micro_batch > training.batch:
            remedy = f"At most {training.batch}, or null."
            raise SettingError(
                "training.micro_batch", training.micro_batch, "it is larger than training.batch", remedy
            )
        if training.steps is not None and training.warmup_steps > training.steps:
            problem = f"the learning rate would still rise after all {training.steps} steps"
            raise SettingError(
                "training.warmup_steps", training.warmup_steps, problem, f"At most {training.steps}."
            )
        if abs(sum(training.direction_weights) - 1) > 1e-6:
            raise SettingError(
                "training.direction_weights",
                list(training.direction_weights),
                "they are not 1 together",
                "[0.5, 0.5]",
            )
        if (training.loss_chunk or training.loss_ring) and training.direction_weights != (0.5, 0.5):
            raise SettingError(
                "training.direction_weights",
                list(training.direction_weights),
                "losses in chunks or in a ring take both directions alike",
                "[0.5, 0.5], or training.loss_chunk=null and training.loss_ring=false",
            )
        whole = [name for name in weights if declared_objectives()[name].reach == "batch"]
        if training.loss_ring and whole:
            problem = f"objectives.{whole[0]} needs the whole batch in every process"
            raise SettingError("training.loss_ring", True, problem, f"false, or objectives.{whole[0]}=0")
        if self.data.order == "shards" and (self.data.decoded or self.student.cache_frozen):
            setting = "data.decoded" if self.data.decoded else "student.cache_frozen"
            problem = f"with {setting} the shards are read once only"
            raise SettingError("data.order", "shards", problem, "shuffled.")
        if self.student.cache_frozen:
            for setting, value, required in (
                ("training.augmentation.crop_scale", training.augmentation.crop_scale, (1.0, 1.0)),
                ("objectives.mfd", self.objectives.mfd, 0.0),
                ("data.decoded", self.data.decoded, None),
            ):
                if value != required:
                    problem = "student.cache_frozen keeps what frozen layers make of whole pictures"
                    remedy = f"{required}, or student.cache_frozen=false."
                    raise SettingError(setting, value, problem, remedy)
        for setting in ("compile", "gradient_checkpointing"):
            other = "student.cache_frozen" if self.student.cache_frozen else None
            if setting == "compile" and self.objectives.mfd:
                other = "objectives.mfd"
            if other and getattr(training, setting):
                problem = f"with {other} a tower computes now all and now a part of itself"
                raise SettingError(f"training.{setting}", True, problem, f"false, or leave out {other}.")
        low, high = training.augmentation.crop_scale
        if low > high:
            raise SettingError(
                "training.augmentation.crop_scale",
                [low, high],
                "the smaller share comes first",
                f"[{high}, {low}]",
            )
        return self

    def _check_cross_modal(self) -> None:
        settings = self.cross_modal
        if settings.epoch is not None and settings.epoch > settings.epochs and settings.run is None:
            problem = f"the teacher is trained for {settings.epochs}"
            raise SettingError("cross_modal.epoch", settings.epoch, problem, f"At most {settings.epochs}.")
        if self.trains == "student":
            return
        if self.teacher is None:
            problem = "a cross-modal teacher reads with frozen towers, and there are none"
            raise SettingError("teacher", None, problem, "Set teacher.model.")
        if settings.control == "null":
            problem = "the null teacher is the caption's embedding and learns nothing"
            raise SettingError("cross_modal.control", "null", problem, "none, text_only or shuffled_regions")
        fresh = Training()
        for name, here in (("epochs", "epochs"), ("steps", "epochs"), ("batch", "batch"), ("lr", "lr")):
            value = getattr(self.training, name)
            if value != getattr(fresh, name):
                problem = f"for the cross-modal teacher cross_modal.{here} counts"
                raise SettingError(f"training.{name}", value, problem, f"Set cross_modal.{here}.")

    @classmethod
    def load(cls, name_or_path: str | Path, overrides: Mapping[str, object] | None = None) -> "Recipe":
        """The shipped recipe of that name, or the one in a YAML file, with dotted `overrides` on top.

        An override's value may be text, read as the setting's type asks for (`"1e-4"`, `"null"`). Raises
        SettingError for an unknown recipe or setting, naming the nearest, and for an unusable value.
        """
        return cls.from_settings(_read(_locate(str(name_or_path)), ()), overrides)

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], overrides: Mapping[str, object] | None = None
    ) -> "Recipe":
        """The recipe with these nested settings, else the defaults; `overrides` as in `load`."""
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
        """The recipes that come with the workbench."""
        return sorted(path.stem for path in RECIPES.rglob("*.yaml"))

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
        """sha256 over every setting that changes the outcome, hex."""
        return sha256_of_json(dict(_flat(self, aside=False, later=False)))

    def to_yaml(self) -> str:
        """All settings, defaults included, as YAML that `load` reads."""
        return write_yaml(self.model_dump(mode="json"))

    def save(self, path: str | Path) -> None:
        """Write `to_yaml()`, whole or not at all."""
        with atomic_write(Path(path), "w") as stream:
            stream.write(self.to_yaml())


def differences(a: Recipe, b: Recipe, aside: bool = False) -> dict[str, tuple[Any, Any]]:
    """{dotted name: (in `a`, in `b`)} where outcome-changing settings differ; with `aside`, where any do."""
    ours, theirs = dict(_flat(a, aside)), dict(_flat(b, aside))
    names = [*ours, *(name for name in theirs if name not in ours)]
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}


def lasting_settings(recipe: Recipe) -> dict[str, Any]:
    """All settings, nested and plain, but without those that came later and are at their default: for names
    that older versions gave too."""
    tree: dict[str, Any] = {}
    for name, value in _flat(recipe, aside=True, later=False):
        *sections, key = name.split(".")
        branch = tree
        for section in sections:
            branch = branch.setdefault(section, {})
        branch[key] = value
    return tree


def _flat(
    model: BaseModel, aside: bool, prefix: str = "", *, later: bool = True
) -> Iterator[tuple[str, Any]]:
    """Dotted names and plain values: with those set `aside` or without, and with settings that came `later`
    or only where these are changed."""
    plain = model.model_dump(mode="json")
    for name, field in type(model).model_fields.items():
        value, marks = getattr(model, name), field.json_schema_extra or {}
        assert isinstance(marks, dict)
        if isinstance(value, BaseModel):
            yield from _flat(value, aside, f"{prefix}{name}.", later=later)
        elif (aside or "aside" not in marks) and (later or "later" not in marks or value != field.default):
            yield prefix + name, plain[name]


def _locate(name: str) -> Path:
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or path.name != name:
        if not path.is_file():
            raise SettingError(
                "recipe", name, "there is no such file", "A YAML file, or the name of a shipped recipe."
            )
        return path
    shipped = {recipe.stem: recipe for recipe in RECIPES.rglob("*.yaml")}
    if name not in shipped:
        raise SettingError("recipe", name, "no recipe of this name is shipped", suggestion(name, shipped))
    return shipped[name]


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The settings in a YAML file, put over those of the recipe that it `extends`."""
    try:
        settings = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(
            "recipe", str(path), f"it cannot be read ({error.strerror})", "A file of yours."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(
            "recipe", str(path), f"this is no YAML text ({' '.join(str(error).split())})", "Fix the file."
        ) from None
    if not isinstance(settings, dict):
        raise SettingError(
            "recipe",
            str(path),
            "it holds no settings",
            "Lines such as `name: mine`, see `workbench show NAME`.",
        )
    base = settings.pop("extends", None)
    tree: dict[str, Any] = {"name": path.stem}
    if base is not None:
        beside = path.parent / str(base)
        origin = beside if beside.suffix in (".yaml", ".yml") and beside.is_file() else _locate(str(base))
        if origin.resolve() in (*seen, path.resolve()) or len(seen) > MOST_BASES:
            raise SettingError(
                "extends", str(base), f"{path.name} would extend itself", "Extend another recipe."
            )
        tree = {**_read(origin, (*seen, path.resolve())), **tree}
    for key, value in settings.items():
        set_by_path(tree, Recipe, str(key), value)
    return tree
