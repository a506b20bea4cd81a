"""Plans a sweep: a grid or list of recipe overrides, times seeds, with a folder for every run."""

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
from workbench.recipe.model_sections import Section
from workbench.recipe.overrides import set_by_path, to_setting_error
from workbench.recipe.yaml_io import read_yaml

Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
Lists = dict[str, Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]]
Entries = Annotated[tuple[dict[str, Any], ...], Field(strict=False)]
LONGEST = 180  # bytes, the longest folder name made of a run's settings


class Sweep(Section):
    """The settings of a sweep: every combination of `grid`, then every entry of `runs`, for each of `seeds`.

    `grid` maps dotted settings to lists of values. `runs` is a list of mappings from dotted settings to
    values. The key `recipe` in either selects another recipe. `overrides` apply to all runs. `notebook` is
    executed for every run.
    """

    recipe: str | None = None
    overrides: dict[str, Any] = Field(default={})
    grid: Lists = Field(default={})
    runs: Entries = ()
    seeds: Seeds = (0,)
    notebook: str = "05_full_training_run"


@dataclass(frozen=True)
class Planned:
    """A run of a sweep: the parameters of its notebook, and the folder for its outputs."""

    folder: Path
    recipe: str
    overrides: Mapping[str, Any]
    seed: int

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def run_dir(self) -> Path:
        """Its run folder, next to the executed notebook."""
        return self.folder / "run"

    def parameters(self) -> dict[str, Any]:
        """The parameters of the notebook."""
        return {
            "recipe": self.recipe,
            "overrides": dict(self.overrides),
            "seed": self.seed,
            "run_dir": str(self.run_dir),
        }


def load_sweep(path: str | Path) -> Sweep:
    """Load a sweep from a YAML file. Raises SettingError, suggesting a valid name, for unusable settings."""
    path = Path(path).expanduser()
    if not path.is_file():
        remedy = "Give the path of a sweep's YAML file."
        raise SettingError("sweep", str(path), "there is no such file", remedy)
    try:
        settings = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
        raise SettingError("sweep", str(path), problem, "Give a file that you may read.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = f"this is not a YAML file ({' '.join(str(error).split())})"
        raise SettingError("sweep", str(path), problem, "Fix the file.") from None
    if not isinstance(settings, dict):
        raise SettingError(
            "sweep", str(path), "it holds no settings", "Add lines such as `recipe: clip_kd_demo`."
        )
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        set_by_path(tree, Sweep, str(key), value)
    try:
        return Sweep.model_validate(tree)
    except ValidationError as error:
        raise to_setting_error(error.errors()[0], Sweep, tree) from None


def plan(sweep: Sweep, out: Path) -> list[Planned]:
    """The runs of a sweep in their order, seed by seed, so that an interrupted sweep has complete tables.

    Every recipe is loaded, so that a wrong setting is refused before anything runs. Two runs that would train
    the same are refused too, such as two spellings of a value, or an entry of `runs` that is in the grid.
    """
    combinations = itertools.product(*sweep.grid.values()) if sweep.grid else ()
    points = [dict(zip(sweep.grid, values, strict=True)) for values in combinations]
    points += [dict(entry) for entry in sweep.runs]
    planned: dict[str, Planned] = {}
    trained: dict[tuple[str, str], str] = {}
    for seed in sweep.seeds:
        for point in points or [{}]:
            settings = dict(point)
            recipe = settings.pop("recipe", sweep.recipe)
            if recipe is None:
                raise SettingError(
                    "recipe", None, "the sweep names no recipe", "Name one of `workbench recipes`."
                )
            overrides = {**sweep.overrides, **settings}
            if "seed" in overrides:
                problem = "this setting does not belong in overrides, grid or runs"
                raise SettingError("seed", overrides["seed"], problem, "List seeds in `seeds`.")
            loaded = Recipe.load(recipe, {**overrides, "seed": seed})
            name = _name(recipe, settings, seed)
            # Names may differ only in characters that folder names cannot have; a hash makes them distinct.
            if name in planned:
                name = f"{name[:LONGEST]}-{sha256_of_json([recipe, overrides, seed])[:8]}"
            twin = trained.setdefault((loaded.name, loaded.fingerprint), name)
            if twin != name:
                problem = f"it trains the same run as {twin}"
                raise SettingError("runs", point, problem, "Remove one of them.")
            planned[name] = Planned(Path(out).absolute() / name, recipe, overrides, seed)
    return list(planned.values())


def _name(recipe: str, settings: Mapping[str, Any], seed: int) -> str:
    """A folder name made of a run's settings, shortened if it is too long for a file system."""
    parts = [Path(recipe).stem, *(f"{key}={value}" for key, value in settings.items()), f"seed{seed}"]
    name = re.sub(r"[^\w.=+-]+", "_", "-".join(parts))
    if len(name.encode()) <= LONGEST:
        return name
    digest = sha256_of_json([recipe, settings, seed])[:8]
    return f"{name.encode()[:LONGEST].decode(errors='ignore')}-{digest}-seed{seed}"
