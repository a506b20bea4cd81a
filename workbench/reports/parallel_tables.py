"""Tables for `parallel_figure`: settings and results of runs, or results of comparisons."""

from collections.abc import Mapping, Sequence
from typing import Any

from pandas import DataFrame

from workbench.figures.style import is_share, metric_label
from workbench.recipe import differences
from workbench.runs.run import Run

Key = tuple[str, str]  # split, metric


def runs_to_explore(runs: Sequence[Run], keys: Sequence[Key]) -> DataFrame:
    """A table with a row per evaluated run: differing settings, then the results of `keys`.

    Shares are in per cent. Missing results are NaN.
    """
    recipes = [run.recipe for run in runs]
    changed: dict[str, None] = {}
    for recipe in recipes[1:]:
        changed |= dict.fromkeys(differences(recipes[0], recipe))
    if len({recipe.name for recipe in recipes}) > 1:
        changed = {"name": None} | changed
    rows = []
    for run, recipe in zip(runs, recipes, strict=True):
        plain = recipe.model_dump(mode="json")
        settings = {name: _axis_value(_inside(plain, name)) for name in changed}
        scores = {split: results.report["scores"] for split, results in run.evaluations.items()}
        results = {key: scores.get(key[0], {}).get(key[1], float("nan")) for key in keys}
        rows.append(settings | {_label(key): _percent(key, value) for key, value in results.items()})
    return DataFrame(rows)


def groups_to_explore(tables: Mapping[str, DataFrame], keys: Sequence[Key]) -> DataFrame:
    """A table with a row per group of every comparison: its name, the group and the results of `keys`.

    Comparisons that lack one of the results are skipped. Groups that share a name, such as baselines, get the
    comparison's name appended.
    """
    rows = []
    for name, table in tables.items():
        if not all(key in table.index for key in keys):
            continue
        for group in dict.fromkeys(table.columns.get_level_values(0)):
            results = {_label(key): _percent(key, table.loc[key, (group, "value")]) for key in keys}
            rows.append({"ablation": name, "recipe": group} | results)
    frame = DataFrame(rows, columns=["ablation", "recipe", *map(_label, keys)])
    repeated = frame["recipe"].duplicated(keep=False)
    frame.loc[repeated, "recipe"] += " (" + frame["ablation"] + ")"
    return frame


def _inside(tree: Any, name: str) -> Any:
    for part in name.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _axis_value(value: Any) -> Any:
    """Numbers unchanged, other values as text, because an axis is either numeric or categorical."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _percent(key: Key, value: float) -> float:
    return float(100 * value if is_share(key[1]) else value)


def _label(key: Key) -> str:
    return f"{key[0]}: {metric_label(key[1])}"
