"""Tables to explore with `parallel_figure`: settings and results of runs, or results of shipped
comparisons."""

from collections.abc import Mapping, Sequence
from typing import Any

from pandas import DataFrame

from workbench.figures.style import is_share, metric_label
from workbench.recipe import differences
from workbench.runs.run import Run

Key = tuple[str, str]  # split, metric


def runs_to_explore(runs: Sequence[Run], keys: Sequence[Key]) -> DataFrame:
    """A row for every evaluated run: the settings in which they differ, then the results `keys` name.

    Shares are in per cent; a result that a run lacks is NaN.
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
    """A row for every group of every comparison, under the comparison's name; results as `keys` name them.

    Comparisons that lack one of them are skipped. Groups of one name (baselines) carry the comparison's.
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
    """Numbers as they are, all else as text: an axis has either."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _percent(key: Key, value: float) -> float:
    return float(100 * value if is_share(key[1]) else value)


def _label(key: Key) -> str:
    return f"{key[0]}: {metric_label(key[1])}"
