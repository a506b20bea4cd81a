"""Evaluates a run's teacher, its start, and interpolations between start and run (WiSE-FT)."""

import re
from collections.abc import Callable
from pathlib import Path

from pandas import DataFrame

from workbench.evaluation.suites import evaluate
from workbench.figures.pareto import ParetoPoint
from workbench.files import sha256_of_json
from workbench.models.dual_encoder import DualEncoder
from workbench.models.interpolate import interpolate
from workbench.recipe import lasting_settings
from workbench.reports.compare import START
from workbench.runs.epochs import has_start, start_model
from workbench.runs.folder import read_recipe, write_recipe
from workbench.runs.run import Run
from workbench.targets.cached import say_at_once
from workbench.targets.image_text import load_teacher

Key = tuple[str, str]

__all__ = [
    "evaluated_between",
    "evaluated_start",
    "evaluated_teacher",
    "has_start",
    "kept_points",
    "start_model",
]

TEACHER = "teacher"  # the recipe name under which it is evaluated
BETWEEN = re.compile(r"WiSE-FT, ([\d.]+) of (.+)")  # the name of a group: alpha and the recipe


def evaluated_start(run: Run, folder: Path) -> Run:
    """Evaluate the start of `run` with the run's recipe, in a run folder of its own below `folder`.

    Runs with the same start, data and evaluation share this folder. Existing results are kept.
    """
    recipe = run.recipe
    settings = lasting_settings(recipe)
    start = {name: settings["student"][name] for name in ("model", "pretrained", "initial_weights")}
    key = [start, settings["data"], settings["evaluation"]]
    return _evaluated(run, START, folder / f"start-{sha256_of_json(key)[:8]}", lambda: start_model(run))


def evaluated_between(run: Run, alpha: float, folder: Path) -> Run:
    """Evaluate the interpolation between the start (alpha 0) and the end (alpha 1) of `run`, likewise."""
    recipe = run.recipe
    path = folder / f"between-{alpha:g}-{sha256_of_json(lasting_settings(recipe))[:8]}"
    name = f"WiSE-FT, {alpha:g} of {recipe.name}"
    return _evaluated(run, name, path, lambda: interpolate(start_model(run), run.model(), alpha))


def evaluated_teacher(run: Run, folder: Path) -> Run | None:
    """Evaluate the teacher of `run`, likewise; None if the run has none that embeds pictures and captions."""
    recipe = run.recipe
    if recipe.teacher is None or recipe.teacher.model == "python":
        return None
    teacher = load_teacher(recipe)
    if set(teacher.sides) != {"image", "text"} or not isinstance(teacher.model, DualEncoder):
        return None
    settings = lasting_settings(recipe)
    key = [settings["teacher"], settings["data"], settings["evaluation"]]
    return _evaluated(run, TEACHER, folder / f"teacher-{sha256_of_json(key)[:8]}", lambda: teacher.model)


def _evaluated(run: Run, name: str, path: Path, model: Callable[[], DualEncoder]) -> Run:
    recipe = read_recipe(run.path, {"name": name})
    if not (path / "evaluation").is_dir():
        write_recipe(path, recipe)
        say_at_once(f"evaluating {name}")
        evaluate(model(), recipe, path / "evaluation", say=say_at_once)
    return Run(path)


def kept_points(table: DataFrame, zero_shot: Key, recall: Key) -> list[ParetoPoint]:
    """The points of `pareto_figure`: recall, and zero-shot accuracy relative to the start, by group.

    `table` is a `Comparison.table` whose first group is the start. Keys are (split, metric). Intervals are
    those of the difference to the start, added to the start's value, so they show how certain it is that a
    point differs from the start. Groups of `evaluated_between` become points of a path.
    """
    groups = list(dict.fromkeys(table.columns.get_level_values(0)))
    start = float(table.loc[zero_shot, (groups[0], "value")])

    def around(key: Key, group: str, unit: float) -> tuple[float, float, float]:
        row, base = table.loc[key], float(table.loc[key, (groups[0], "value")])
        value = float(row[group, "value"])
        ends = (
            [value] * 2 if group == groups[0] else [base + float(row[group, end]) for end in ("low", "high")]
        )
        return value / unit, ends[0] / unit, ends[1] / unit

    points = []
    for group in groups:
        between = BETWEEN.fullmatch(group)
        method, alpha = (between[2], float(between[1])) if between else (group, None)
        points.append(ParetoPoint(method, around(zero_shot, group, start), around(recall, group, 1.0), alpha))
    return points
