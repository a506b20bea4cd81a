"""What a sweep runs: a grid or a list of recipe overrides, times seeds, each with a folder of its own."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from workbench.errors import SettingError
from workbench.files import sha256_of_json
from workbench.recipe import Recipe
from workbench.recipe.overrides import set_by_path, to_setting_error
from workbench.recipe.schema import Section
from workbench.recipe.yaml_io import read_yaml

Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
Lists = dict[str, Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]]
Entries = Annotated[tuple[dict[str, Any], ...], Field(strict=False)]
LONGEST = 180  # bytes of a run's folder name that say what is special about it


class Sweep(Section):
    """Every combination of `grid`, then every entry of `runs`, once for each of `seeds`.

    `grid` maps dotted settings to lists of values; `runs` lists mappings of dotted settings. The key `recipe`
    names another recipe. `overrides` hold for all. `notebook` is executed for each.
    """

    recipe: str | None = None
    overrides: dict[str, Any] = Field(default={})
    grid: Lists = Field(default={})
    runs: Entries = ()
    seeds: Seeds = (0,)
    notebook: str = "05_full_training_run"


@dataclass(frozen=True)
class Planned:
    """One run of a sweep: the notebook's parameters, and the folder for all that comes of it."""

    folder: Path
    recipe: str
    overrides: Mapping[str, Any]
    seed: int

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def run_dir(self) -> Path:
        """Its run folder, beside the executed notebook."""
        return self.folder / "run"

    def parameters(self) -> dict[str, Any]:
        """What the notebook is given."""
        return {
            "recipe": self.recipe,
            "overrides": dict(self.overrides),
            "seed": self.seed,
            "run_dir": str(self.run_dir),
        }


def load_sweep(path: str | Path) -> Sweep:
    """The sweep in a YAML file; SettingError, naming the nearest valid name, for what cannot be used."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise SettingError("sweep", str(path), "there is no such file", "The path of a sweep's YAML file.")
    try:
        settings = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
        raise SettingError("sweep", str(path), problem, "A file of yours.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = f"this is no YAML text ({' '.join(str(error).split())})"
        raise SettingError("sweep", str(path), problem, "Fix the file.") from None
    if not isinstance(settings, dict):
        raise SettingError(
            "sweep", str(path), "it holds no settings", "Lines such as `recipe: clip_kd_demo`."
        )
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        set_by_path(tree, Sweep, str(key), value)
    try:
        return Sweep.model_validate(tree)
    except ValidationError as error:
        raise to_setting_error(error.errors()[0], Sweep, tree) from None


def plan(sweep: Sweep, out: Path) -> list[Planned]:
    """The runs of a sweep, in the order they are started: seed by seed, so that a stop leaves whole tables.

    Every recipe is loaded once, so that a wrong setting is refused before anything runs, and so is a run that
    would train what another one trains: two spellings of a value, or a list's entry that is in the grid.
    """
    combinations = itertools.product(*sweep.grid.values()) if sweep.grid else ()
    points = [dict(zip(sweep.grid, values, strict=True)) for values in combinations]
    points += [dict(entry) for entry in sweep.runs]
    planned: dict[str, Planned] = {}
    trained: dict[tuple[str, str], str] = {}
    for seed in sweep.seeds:
        for point in points or [{}]:
            chosen = dict(point)
            recipe = chosen.pop("recipe", sweep.recipe)
            if recipe is None:
                raise SettingError("recipe", None, "the sweep names no recipe", "See `workbench recipes`.")
            overrides = {**sweep.overrides, **chosen}
            if "seed" in overrides:
                raise SettingError("seed", overrides["seed"], "the sweep sets it", "List seeds in `seeds`.")
            loaded = Recipe.load(recipe, {**overrides, "seed": seed})
            name = _name(recipe, chosen, seed)
            if (
                name in planned
            ):  # the hash tells names apart that differ in characters which a folder cannot have
                name = f"{name[:LONGEST]}-{sha256_of_json([recipe, overrides, seed])[:8]}"
            twin = trained.setdefault((loaded.name, loaded.fingerprint), name)
            if twin != name:
                problem = f"it trains the same run as {twin}"
                raise SettingError("runs", point, problem, "Leave one of them out.")
            planned[name] = Planned(Path(out).absolute() / name, recipe, overrides, seed)
    return list(planned.values())


def _name(recipe: str, chosen: Mapping[str, Any], seed: int) -> str:
    """A folder name that says what is special about a run, as far as a file system has room for it."""
    parts = [Path(recipe).stem, *(f"{key}={value}" for key, value in chosen.items()), f"seed{seed}"]
    name = re.sub(r"[^\w.=+-]+", "_", "-".join(parts))
    if len(name.encode()) <= LONGEST:
        return name
    digest = sha256_of_json([recipe, chosen, seed])[:8]
    return f"{name.encode()[:LONGEST].decode(errors='ignore')}-{digest}-seed{seed}"
