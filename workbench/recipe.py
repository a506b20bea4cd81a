"""What an experiment is: recipes, from YAML and overrides, checked as a whole. Imports no torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from workbench.errors import SettingError
from workbench.files import atomic_write, sha256_of_json
from workbench.plain_yaml import read_yaml, write_yaml
from workbench.sections import (
    ASIDE,
    Concepts,
    Data,
    Evaluation,
    Model,
    Objectives,
    Section,
    Targets,
    TextTeacher,
    Training,
)
from workbench.settings import explained, place, suggestion

RECIPES = Path(__file__).parent / "recipes"


class Recipe(Section):
    """One experiment, complete: data, models, targets, objectives, training and evaluation. Immutable."""

    name: str = Field(json_schema_extra=ASIDE)
    description: str = Field(default="", json_schema_extra=ASIDE)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    allow_download: bool = Field(default=False, json_schema_extra=ASIDE)
    data: Data = Data()
    student: Model
    teacher: Model | None = None
    text_teacher: TextTeacher | None = None
    targets: Targets = Targets()
    concepts: Concepts = Concepts()
    objectives: Objectives = Objectives()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="after")
    def _settings_agree(self) -> "Recipe":
        weights, training = self.objectives.weights(), self.training
        if not weights:
            raise SettingError(
                "objectives",
                "all 0",
                "there is nothing to learn from",
                "Give one a weight, e.g. objectives.task=1",
            )
        for name, weight in weights.items():
            needed = "text_teacher" if name in ("embedding", "concepts") else "teacher"
            if name != "task" and getattr(self, needed) is None:
                raise SettingError(
                    f"objectives.{name}",
                    weight,
                    f"it needs a {needed.replace('_', ' ')}, and there is none",
                    f"Set {needed}.model, or objectives.{name}=0",
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
        low, high = training.augmentation.crop_scale
        if low > high:
            raise SettingError(
                "training.augmentation.crop_scale",
                [low, high],
                "the smaller share comes first",
                f"[{high}, {low}]",
            )
        return self

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
            place(tree, cls, str(key), value)
        for key, value in (overrides or {}).items():
            place(tree, cls, key, value, text=True)
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise explained(error.errors()[0], cls, tree) from None

    @classmethod
    def names(cls) -> list[str]:
        """The recipes that come with the workbench."""
        return sorted(path.stem for path in RECIPES.glob("*.yaml"))

    @property
    def fingerprint(self) -> str:
        """sha256 over every setting that changes the outcome, hex."""
        return sha256_of_json(dict(_flat(self, aside=False)))

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


def _flat(model: BaseModel, aside: bool, prefix: str = "") -> Iterator[tuple[str, Any]]:
    plain = model.model_dump(mode="json")
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _flat(value, aside, f"{prefix}{name}.")
        elif aside or field.json_schema_extra != ASIDE:
            yield prefix + name, plain[name]


def _locate(name: str) -> Path:
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml") or path.name != name:
        if not path.is_file():
            raise SettingError(
                "recipe", name, "there is no such file", "A YAML file, or the name of a shipped recipe."
            )
        return path
    if name not in Recipe.names():
        raise SettingError(
            "recipe", name, "no recipe of this name is shipped", suggestion(name, Recipe.names())
        )
    return RECIPES / f"{name}.yaml"


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """The settings in a YAML file, put over those of the recipe that it `extends`."""
    try:
        settings = read_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(
            "recipe", str(path), f"this is no YAML text ({' '.join(str(error).split())})", "Mend the file."
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
        if origin.resolve() in (*seen, path.resolve()):
            raise SettingError(
                "extends", str(base), f"{path.name} would extend itself", "Extend another recipe."
            )
        tree = {**_read(origin, (*seen, path.resolve())), **tree}
    for key, value in settings.items():
        place(tree, Recipe, str(key), value)
    return tree
