"""What a pretrained student started from, and the way back to it, evaluated like the runs."""

import re
from collections.abc import Callable
from pathlib import Path

from pandas import DataFrame

from workbench.evaluation.suites import evaluate
from workbench.figures.pareto import FrontPoint
from workbench.files import sha256_of_json
from workbench.models.dual_encoder import DualEncoder
from workbench.models.interpolate import interpolate
from workbench.models.loading import load_dual_encoder
from workbench.recipe import Recipe, lasting_settings
from workbench.reports.compare import START
from workbench.runs.run import Run

Key = tuple[str, str]

BETWEEN = re.compile(r"WiSE-FT, ([\d.]+) of (.+)")  # a group's name: alpha and the run that it leads to


def has_start(run: Run) -> bool:
    """Whether all of the student started from pretrained weights: else it has nothing to forget."""
    student = run.recipe.student
    parts = ", ".join(dict.fromkeys(student.initial_weights.values()))
    return run.start is not None and (student.pretrained is not None or run.start != parts)


def start_model(run: Run) -> DualEncoder:
    """The student as it was before the first step."""
    recipe = run.recipe
    model = load_dual_encoder(
        recipe.student.model,
        recipe.student.pretrained,
        initial_weights=recipe.student.initial_weights,
        allow_download=recipe.allow_download,
        setting="student",
    )
    return model.eval()


def evaluated_start(run: Run, folder: Path) -> Run:
    """The start of `run` in a run folder of its own below `folder`, evaluated as the run's recipe says.

    Runs of one start, data and evaluation share it; existing results are not measured again.
    """
    recipe = run.recipe
    settings = lasting_settings(recipe)
    start = {name: settings["student"][name] for name in ("model", "pretrained", "initial_weights")}
    key = [start, settings["data"], settings["evaluation"]]
    return _evaluated(run, START, folder / f"start-{sha256_of_json(key)[:8]}", lambda: start_model(run))


def evaluated_between(run: Run, alpha: float, folder: Path) -> Run:
    """The model that lies `alpha` of the way from the start to the end of `run` (WiSE-FT), likewise."""
    recipe = run.recipe
    place = folder / f"between-{alpha:g}-{sha256_of_json(lasting_settings(recipe))[:8]}"
    name = f"WiSE-FT, {alpha:g} of {recipe.name}"
    return _evaluated(run, name, place, lambda: interpolate(start_model(run), run.model(), alpha))


def _evaluated(run: Run, name: str, place: Path, model: Callable[[], DualEncoder]) -> Run:
    recipe = Recipe.load(str(run.path / "recipe.yaml"), {"name": name})
    if not (place / "evaluation").is_dir():
        recipe.save(place / "recipe.yaml")
        evaluate(model(), recipe, place / "evaluation")
    return Run(place)


def kept_points(table: DataFrame, zero_shot: Key, recall: Key) -> list[FrontPoint]:
    """Zero-shot kept and recall of every group of a `Comparison.table` whose first group is the start.

    Keys are (split, metric). The ends of an interval are those of the difference to the start, added to the
    start's value: how sure it is that a point lies elsewhere than the start does. Groups of
    `evaluated_between` become points of a path by their alpha.
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
        name = f"WiSE-FT of {method}" if between else method
        points.append(FrontPoint(name, around(zero_shot, group, start), around(recall, group, 1.0), alpha))
    return points
