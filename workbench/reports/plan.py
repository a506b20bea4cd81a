"""Plans experiments: how many seeds and pictures an effect needs, estimated from existing runs."""

import statistics
from collections.abc import Sequence

from workbench.errors import SettingError
from workbench.evaluation.power import Variation, pictures_needed, seeds_needed
from workbench.figures.style import is_share, metric_label
from workbench.reports.compare import RunLike, compare, difference_by_seed

SEEDS = (3, 5, 10, 20)


def plan(
    runs: Sequence[RunLike],
    effect: float,
    *,
    metric: str = "text_to_image_r1",
    split: str | None = None,
) -> str:
    """Estimate how many seeds a difference needs for several numbers of pictures, and the other way round.

    `runs` are at least two seeds of each of two recipes, evaluated on the same data. `effect` is the
    difference to detect with a power of 80 %, in points for shares, otherwise in the metric's unit. Raises
    SettingError if the variation between seeds cannot be estimated from the runs.
    """
    if not 0 < effect < (100.0 if is_share(metric) else float("inf")):
        limits = "above 0 and below 100" if is_share(metric) else "above 0"
        raise SettingError(
            "--detect", effect, "this is not a difference", f"Give a value {limits}, e.g. 1.0."
        )
    comparison = compare(runs)
    groups = list(comparison.groups.values())
    known = list(comparison.table.index)
    split = split or known[0][0]
    if split not in (splits := dict.fromkeys(part for part, _ in known)):
        problem = "the runs do not share it"
        raise SettingError("--split", split, problem, f"One of: {', '.join(splits)}.")
    if (split, metric) not in known:
        metrics = ", ".join(name for part, name in known if part == split)
        raise SettingError("--metric", f"{split} {metric}", "it was not measured", f"One of: {metrics}.")
    row = comparison.table.loc[split, metric]
    if not all(row[name, "queries"] for name in comparison.groups):
        problem = "the runs have no results of single queries for it"
        remedy = "Use a metric with intervals in `workbench compare`, such as text_to_image_r1."
        raise SettingError("--metric", f"{split} {metric}", problem, remedy)
    difference = difference_by_seed(split, metric, groups[1], groups[0]) if len(groups) == 2 else None
    if difference is None:
        counts_by_recipe = {name: len(members) for name, members in comparison.groups.items()}
        problem = "the variation between seeds cannot be estimated from them"
        remedy = "Give at least two seeds of each of two recipes."
        raise SettingError("runs", counts_by_recipe, problem, remedy)
    unit = 100.0 if is_share(metric) else 1.0
    counts = [len(group) for group in groups if not group[0].untrained]
    seeds = statistics.harmonic_mean(counts)  # as many on either side vary as much
    variation = Variation.of(difference.components, seeds, difference.n)
    sizes = " and ".join(map(str, dict.fromkeys(counts)))
    lines = [
        f"{metric_label(metric)} on {split}: a difference of {effect:g}, detected in 80 % of experiments by "
        "a 95 % interval",
        f"these runs ({sizes} seeds, {difference.n:,} pictures) detect "
        f"{unit * variation.detectable(seeds, difference.n):.1f}",
        "",
    ]
    for factor in (1, 2, 4):
        pictures = factor * difference.n
        needed = seeds_needed(effect / unit, pictures, variation)
        lines.append(f"  {pictures:>9,} pictures: {_count(needed, 'seeds')}")
    lines.append("")
    for count in SEEDS:
        needed = pictures_needed(effect / unit, count, variation)
        lines.append(f"  {count:>9} seeds:    {_count(needed, 'pictures')}")
    spread = unit * variation.seeds**0.5
    lines += [
        "",
        f"Standard deviation of the difference due to seeds alone: {spread:.1f}.",
    ]
    return "\n".join(lines)


def _count(needed: int | None, unit: str) -> str:
    return f"{needed:,} {unit}" if needed is not None else f"no number of {unit} is enough"
