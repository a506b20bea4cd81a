"""Compares evaluated runs: groups of seeds against a baseline, with an interval for every difference."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from workbench.errors import SettingError
from workbench.evaluation.significance import CrossedDifference, crossed_interval, paired_bootstrap
from workbench.evaluation.suites import results_of_queries, size_of
from workbench.recipe import Recipe, differences
from workbench.reports.notes import note, without_queries
from workbench.reports.tables import comparison_html, comparison_text
from workbench.runs.run import Run

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from pandas import DataFrame

RESAMPLES = 10_000
START = "start"  # the recipe name under which a pretrained start is evaluated, see reports/wise_ft.py


@runtime_checkable
class HasPath(Protocol):
    """An object with a run folder, such as a `workbench.Run`."""

    @property
    def path(self) -> Path: ...


class DifferentData(SettingError):
    """Runs that were evaluated on different data."""


RunLike = str | PathLike[str] | HasPath


@dataclass(frozen=True)
class Evaluated:
    """A run with its evaluations: for each split, the scores and the results of single queries."""

    path: Path
    recipe: Recipe
    reports: Mapping[str, dict[str, Any]]
    queries: Mapping[str, Mapping[str, np.ndarray]]

    @property
    def untrained(self) -> bool:
        """Whether it is a pretrained start, which does not depend on a seed."""
        return self.recipe.name == START


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`: a table, its figure and the compared runs.

    `table` has a row for each (split, metric) and columns (group, field). `value` is the mean over the
    group's seeds and `spread` their standard deviation; `seeds` and `queries` are counts. All groups but the
    first have the `difference` to the first, the ends `low` and `high` of its 95 % interval, and a `verdict`:
    "higher", "lower", "within noise", or "" if there are no results of single queries. Shares are in [0, 1].
    """

    table: "DataFrame"
    groups: Mapping[str, list[Evaluated]]
    note: str

    def __str__(self) -> str:
        return comparison_text(self.table, self.sizes, self.note)

    __repr__ = __str__  # the plain text that a notebook stores next to the HTML

    def _repr_html_(self) -> str:
        return comparison_html(self.table, self.sizes, self.note)

    @property
    def sizes(self) -> dict[str, str]:
        """The size of each split, as text."""
        reports = next(iter(self.groups.values()))[0].reports
        counts = {split: reports[split] for split in self.table.index.get_level_values(0)}
        return {split: size_of(report) for split, report in counts.items()}

    @cached_property
    def figure(self) -> "go.Figure":
        """The table as a figure with dots and intervals."""
        from workbench.figures.comparison import comparison_figure

        return comparison_figure(self.table)

    def to_json(self) -> str:
        """The whole table as JSON: an object per row, with an object per group in it."""
        rows = []
        for (split, metric), row in self.table.iterrows():
            values = {name: {key: _plain(row[name, key]) for key in row[name].index} for name in self.groups}
            rows.append({"split": split, "metric": metric, "groups": values})
        groups = {
            name: [{"run": str(run.path), "seed": run.recipe.seed} for run in runs]
            for name, runs in self.groups.items()
        }
        return json.dumps({"groups": groups, "rows": rows, "note": self.note}, indent=2)


def compare(runs: Sequence[RunLike], names: Sequence[str] | None = None) -> Comparison:
    """Compare evaluated runs. The seeds of a recipe form a group; the group of the first run is the baseline.

    `names` replaces the recipe names of the runs. Recipes with the same name but different settings form
    separate groups, which are named after the settings that differ. Intervals of differences are over seeds
    and images together (`crossed_interval`), with runs paired by seed. If a group has only one seed, they are
    paired bootstrap intervals over images and do not account for the seed. All captions of an image are
    resampled together. Raises SettingError if a run has not been evaluated, or if runs were evaluated on
    different data.
    """
    if isinstance(runs, str | PathLike) or hasattr(runs, "path"):
        runs = [runs]
    if names is not None and len(names) != len(runs):
        raise ValueError(f"compare: got {len(names)} names for {len(runs)} runs; give one name per run")
    sources = zip(runs, names or [""] * len(runs), strict=True)
    groups = _grouped([_evaluated(run, name) for run, name in sources])
    members = [run for group in groups.values() for run in group]
    splits, skipped = _common([run.reports for run in members])
    if not splits:
        paths = [str(run.path) for run in members]
        remedy = "Evaluate all of them on the same splits."
        raise DifferentData("runs", paths, "they share no evaluated split", remedy)
    rows: dict[tuple[str, str], dict[tuple[str, str], Any]] = {}
    for split in splits:
        _check_same_data(split, members)
        metrics, missing = _common([run.reports[split]["scores"] for run in members])
        skipped += [f"{split} {metric}" for metric in missing]
        for metric in metrics:
            rows[split, metric] = _row(split, metric, groups)
    from pandas import DataFrame, MultiIndex

    table = DataFrame(list(rows.values()), index=MultiIndex.from_tuples(rows, names=["split", "metric"]))
    table.columns = MultiIndex.from_tuples(table.columns, names=["group", "field"])
    return Comparison(table, groups, note(groups, skipped, without_queries(members, splits)))


def _evaluated(source: RunLike, name: str) -> Evaluated:
    path = Path(source) if isinstance(source, str | PathLike) else Path(source.path)
    if not (path / "recipe.yaml").is_file():
        problem = "this folder has no recipe.yaml"
        raise SettingError("runs", str(path), problem, "Give the folder of a run.")
    run, evaluations = Run(path), Run(path).evaluations
    if not evaluations:
        remedy = f"Run `workbench evaluate {path}` first."
        raise SettingError("runs", str(path), "this run has not been evaluated", remedy)
    recipe = run.recipe.model_copy(update={"name": name}) if name else run.recipe
    reports = {split: results.report for split, results in evaluations.items()}
    return Evaluated(path, recipe, reports, {split: part.queries for split, part in evaluations.items()})


def _grouped(runs: Sequence[Evaluated]) -> dict[str, list[Evaluated]]:
    """Group runs that differ only in their seed, under distinct names."""
    if not runs:
        raise SettingError("runs", [], "there is nothing to compare", "Give at least one run folder.")
    groups: list[list[Evaluated]] = []
    for run in runs:
        group = next((group for group in groups if not _changes(group[0], run)), None)
        if group is None:
            groups.append([run])
            continue
        for twin in group:
            if twin.recipe.seed == run.recipe.seed:
                problem = f"both are seed {run.recipe.seed} of {run.recipe.name}"
                paths = [str(twin.path), str(run.path)]
                raise SettingError("runs", paths, problem, "Give each seed of a recipe once.")
        group.append(run)
    return {_group_name(group[0], [other[0] for other in groups]): group for group in groups}


def _changes(run: Evaluated, other: Evaluated) -> dict[str, Any]:
    """The settings of `run` that differ from those of `other`, except for the seed."""
    changes = {key: own for key, (own, _) in differences(run.recipe, other.recipe).items() if key != "seed"}
    return changes if run.recipe.name == other.recipe.name else {"name": run.recipe.name} | changes


def _group_name(run: Evaluated, others: Sequence[Evaluated]) -> str:
    """The recipe's name, and the settings that differ from other groups of the same name."""
    changes: dict[str, Any] = {}
    for other in others:
        if other.recipe.name == run.recipe.name:
            changes |= _changes(run, other)
    settings = ", ".join(f"{key} {value}" for key, value in changes.items())
    return f"{run.recipe.name} ({settings})" if settings else run.recipe.name


def _common(tables: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """The keys that all tables have, in the order of the first, and the keys that only some have."""
    common = [key for key in tables[0] if all(key in table for table in tables)]
    return common, sorted({key for table in tables for key in table} - set(common))


def _check_same_data(split: str, runs: Sequence[Evaluated]) -> None:
    def lengths(run: Evaluated) -> dict[str, int]:
        return {key: len(values) for key, values in run.queries.get(split, {}).items()}

    first, counts = runs[0].reports[split], lengths(runs[0])
    for run in runs[1:]:
        same = all(run.reports[split][key] == first[key] for key in ("data", "images", "captions"))
        # Runs may have different suites, so only shared results are compared.
        if not same or any(counts.get(key, length) != length for key, length in lengths(run).items()):
            problem = f"their results on {split} are from different data"
            command = "`workbench evaluate RUN --set data.source=... --out RUN/evaluation`"
            remedy = f"Evaluate both on the same data: {command}."
            raise DifferentData("runs", [str(runs[0].path), str(run.path)], problem, remedy)


def _row(split: str, metric: str, groups: Mapping[str, list[Evaluated]]) -> dict[tuple[str, str], Any]:
    row: dict[tuple[str, str], Any] = {}
    baseline = next(iter(groups))
    for name, runs in groups.items():
        values = np.array([run.reports[split]["scores"][metric] for run in runs], dtype=float)
        results = _by_seed(split, metric, runs)
        if results is not None and abs(results[0].mean() - values.mean()) > 1e-6:
            paths = [str(run.path) for run in runs]
            problem = f"{split}.json and {split}.npz disagree on {metric}"
            raise SettingError("runs", paths, problem, "Evaluate them again.")
        row[name, "value"] = values.mean()
        row[name, "spread"] = values.std(ddof=1) if len(values) > 1 else np.nan
        row[name, "seeds"] = len(values)
        row[name, "queries"] = 0 if results is None else results[0].shape[1]
        if name == baseline:
            continue
        low, high = _interval(split, metric, runs, groups[baseline])
        verdict = "" if np.isnan(low) else "higher" if low > 0 else "lower" if high < 0 else "within noise"
        row[name, "difference"] = values.mean() - row[baseline, "value"]
        row |= {(name, "low"): low, (name, "high"): high, (name, "verdict"): verdict}
    return row


def _interval(
    split: str, metric: str, runs: Sequence[Evaluated], baseline: Sequence[Evaluated]
) -> tuple[float, float]:
    """The ends of the interval of a difference to the baseline; NaN without results of single queries."""
    crossed = difference_by_seed(split, metric, runs, baseline)
    if crossed is not None:
        return crossed.low, crossed.high
    results, reference = _by_seed(split, metric, runs), _by_seed(split, metric, baseline)
    if results is None or reference is None:
        return np.nan, np.nan
    means = results[0].mean(0), reference[0].mean(0)
    interval = paired_bootstrap(*means, groups=results[1], resamples=RESAMPLES, seed=0)
    return interval.low, interval.high


def difference_by_seed(
    split: str, metric: str, runs: Sequence[Evaluated], baseline: Sequence[Evaluated]
) -> CrossedDifference | None:
    """The difference with its interval over seeds and images.

    Returns None without results of single queries, or if a side has only one seed. A pretrained start does
    not depend on a seed, so a single one suffices.
    """
    counts = [len(side) for side in (runs, baseline) if not side[0].untrained]
    if min(counts, default=1) < 2:
        return None
    seeds = [{run.recipe.seed: run for run in side} for side in (runs, baseline)]
    if paired := len(counts) == 2 and set(seeds[0]) == set(seeds[1]):
        runs, baseline = list(runs), [seeds[1][run.recipe.seed] for run in runs]
    results, reference = _by_seed(split, metric, runs), _by_seed(split, metric, baseline)
    if results is None or reference is None:
        return None
    return crossed_interval(results[0], reference[0], results[1], paired=paired)


def _by_seed(split: str, metric: str, runs: Sequence[Evaluated]) -> tuple[np.ndarray, np.ndarray] | None:
    """The results of all queries by run [S, N] and the image of each query [N]; None if a run has none."""
    pairs = [results_of_queries(metric, run.queries.get(split, {})) for run in runs]
    known = [pair for pair in pairs if pair is not None]
    return (np.stack([results for results, _ in known]), known[0][1]) if len(known) == len(runs) else None


def _plain(value: Any) -> Any:
    """A value for JSON, which has neither NaN nor NumPy scalars."""
    number = value.item() if hasattr(value, "item") else value
    return None if number != number else number
