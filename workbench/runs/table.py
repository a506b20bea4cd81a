"""A table of run folders with state, progress and headline scores, and its sorting."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from workbench.errors import SettingError
from workbench.files import read_json, unsigned
from workbench.metrics import metric
from workbench.recipe import Recipe, differences
from workbench.runs.folder import is_locked, is_silent, read_recipe

LEVELS = 2  # the depth of the search for run folders; the folder `run` of a sweep's run does not count
OURS = ("recipe.yaml", "status.json", "metrics.jsonl")  # files that identify a run folder
MOST_HEADLINES = 4
DAMAGED = "damaged"
BEYOND = 1e300  # larger than any valid number; also excludes NaN and infinity

Score = tuple[str, str]  # evaluated split and metric


@dataclass(frozen=True)
class RunRow:
    """A run, as far as its folder can be read. `reason` says what is damaged, or why the run ended early.

    `state` is that of status.json, or "not trained", "gone" (recorded as running, but dead) or "damaged".
    `updated` is in seconds since 1970. `recipe` is None if it cannot be read.
    """

    path: Path
    folder: str  # relative to the searched folder
    name: str
    state: str
    reason: str = ""
    seed: int | None = None
    step: int | None = None
    total: int | None = None
    updated: float | None = None
    scores: Mapping[Score, float] = field(default_factory=dict)
    recipe: Recipe | None = None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All settings of the recipe by dotted name, and `state`."""
        known = {} if self.recipe is None else dict(_flat(self.recipe.model_dump(mode="json")))
        return {**known, "state": self.state}

    @property
    def comparable(self) -> dict[str, Any]:
        """What a filter can ask for by name: the settings, `step`, and the scores as `split.metric`."""
        scores = {f"{split}.{name}": value for (split, name), value in self.scores.items()}
        return {**self.settings, "step": self.step, **scores}

    def value(self, column: str | Score) -> Any:
        """The value of a column, None if it is unknown."""
        return self.scores.get(column) if isinstance(column, tuple) else getattr(self, column)


def find_runs(source: Any) -> list[RunRow]:
    """Find the runs in a folder, two levels deep, or read several runs or run folders; one row per run.

    Runs of a sweep are included even if they never started. A run that cannot be read has a row with a
    reason. Raises SettingError if `source` is a folder that does not exist.
    """
    if isinstance(source, str | PathLike):
        root = Path(source).expanduser()
        if not root.is_dir():
            remedy = "Give a folder of run folders."
            raise SettingError("folder", str(source), "there is no such folder", remedy)
        return [_read(path, root) for path in _run_folders(root, LEVELS)]
    runs = [source] if hasattr(source, "path") else source
    paths = [Path(run if isinstance(run, str | PathLike) else run.path) for run in runs]
    return [_read(path, path.parent) for path in dict.fromkeys(paths)]


def headline_scores(rows: Iterable[RunRow]) -> list[Score]:
    """The scores to show in a short table: recall@1 and zero-shot accuracy, first of the split `test`.

    A run that has none of these adds its first, so that every evaluated run shows a score.
    """
    rows = list(rows)
    known = dict.fromkeys(score for row in rows for score in row.scores)
    order = {score: rank for score in known if (rank := metric(score[1]).headline) is not None}
    scores = sorted(order, key=lambda score: (score[0] != "test", score[0], order[score]))
    shown = scores[:MOST_HEADLINES]
    for row in rows:
        if not row.scores.keys() & set(shown):
            shown += [score for score in scores if score in row.scores][:1]
    return shown


def sorted_rows(rows: Iterable[RunRow], column: str | Score, descending: bool = False) -> list[RunRow]:
    """Sort rows by a column. Rows without a value come last in either direction."""
    rows = list(rows)
    known = [row for row in rows if row.value(column) is not None]
    known.sort(key=lambda row: row.value(column), reverse=descending)
    return known + [row for row in rows if row.value(column) is None]


def labels(rows: Sequence[RunRow]) -> list[str]:
    """The name and seed of each row, with its folder if these are not unique."""
    plain = [row.name if row.seed is None else f"{row.name}, seed {row.seed}" for row in rows]
    return [
        f"{label} ({row.folder})" if plain.count(label) > 1 else label
        for label, row in zip(plain, rows, strict=True)
    ]


def setting_differences(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
    """The settings that differ between recipes and change the outcome, with their value in each recipe."""
    if not recipes:
        return {}
    changes = [differences(recipes[0], other) for other in recipes[1:]]
    first = {name: value for change in changes for name, (value, _) in change.items()}
    sections = list(Recipe.model_fields)
    return {
        name: [first[name], *(change.get(name, (first[name],) * 2)[1] for change in changes)]
        for name in sorted(first, key=lambda name: sections.index(name.partition(".")[0]))
    }


def _run_folders(folder: Path, levels: int) -> Iterator[Path]:
    if _is_run(folder):
        yield folder
        return
    executed = (folder / "manifest.json").is_file()
    if executed and (_is_run(folder / "run") or _not_begun(folder / "run")):
        yield folder / "run"
    if levels == 0:
        return
    try:
        subfolders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return  # not readable
    for path in subfolders:
        if not path.name.startswith(".") and not (executed and path.name == "run"):
            yield from _run_folders(path, levels - 1)


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in OURS)


def _not_begun(folder: Path) -> tuple[str, str] | None:
    """The state and reason of a run that a notebook should have written to `folder`, None without such a
    notebook."""
    try:
        manifest = read_json(folder.parent / "manifest.json")
        if not manifest["parameters"].get("run_dir"):
            return None
        if manifest["state"] != "failed":
            return "not trained", f"its notebook is {manifest['state']}"
        return "failed", str((manifest["error"] or {}).get("message") or "its notebook failed")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _read(path: Path, root: Path) -> RunRow:
    folder = path.relative_to(root) if path.is_relative_to(root) and path != root else Path(path.name)
    # The run folder of a sweep is called `run`; its parent has the meaningful name.
    folder = folder.parent if folder.name == "run" and folder != Path("run") else folder
    if not (path / "recipe.yaml").is_file():
        state, reason = _not_begun(path) or (DAMAGED, "this folder has no recipe.yaml")
        return RunRow(path, str(folder), folder.name, state, reason, updated=_changed(path))
    reasons: list[str] = []
    status = _mapping(path, "status.json", reasons)
    scores = _scores(path, reasons)
    known: dict[str, Any] = {
        "step": _whole(status.get("step")),
        "total": _whole(status.get("total_steps")),
        "updated": _number(status.get("updated")) or _changed(path / "recipe.yaml"),
        "scores": scores,
    }
    is_damaged = any(reason.startswith("status.json") for reason in reasons)
    state = DAMAGED if is_damaged else _state(path, status)
    if state in ("failed", "interrupted", "gone") and status.get("message"):
        reasons.insert(0, str(status["message"]))
    try:
        recipe = read_recipe(path)
    except (OSError, ValueError, RecursionError) as error:
        problem = error.problem if isinstance(error, SettingError) and error.setting == "recipe" else error
        place = f"in {path / 'recipe.yaml'}: "
        reasons.insert(0, f"recipe.yaml: {str(problem).removeprefix(place)}")
        return RunRow(path, str(folder), folder.name, DAMAGED, "; ".join(reasons), **known)
    known |= {"seed": recipe.seed, "recipe": recipe}
    return RunRow(path, str(folder), recipe.name, state, "; ".join(reasons), **known)


def _state(path: Path, status: Mapping[str, Any]) -> str:
    state = status.get("state")
    if not isinstance(state, str):
        return "starting" if is_locked(path) else "not trained"
    return "gone" if state == "running" and is_silent(path, status) else state


def _scores(path: Path, reasons: list[str]) -> dict[Score, float]:
    known: dict[Score, float] = {}
    for report in sorted((path / "evaluation").glob("*.json")):
        scores = _mapping(path, f"evaluation/{report.name}", reasons).get("scores")
        if isinstance(scores, Mapping):
            numbers = {name: _number(value) for name, value in scores.items()}
            known |= {(report.stem, name): value for name, value in numbers.items() if value is not None}
    return known


def _mapping(path: Path, name: str, reasons: list[str]) -> Mapping[str, Any]:
    """The JSON object in a file of a run; {} if it is missing or damaged, with a reason if it is damaged."""
    try:
        content = unsigned(read_json(path / name))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        reasons.append(f"{name} cannot be read ({error})")
        return {}
    if not isinstance(content, Mapping):
        reasons.append(f"{name} cannot be read (it holds no object)")
        return {}
    return content


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < BEYOND else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
