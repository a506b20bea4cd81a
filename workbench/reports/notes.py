"""The notes below a comparison table."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from workbench.metrics import metric

if TYPE_CHECKING:
    from workbench.reports.compare import Evaluated


MOST_NAMED = 8  # metrics that are omitted


def without_queries(runs: Sequence["Evaluated"], splits: Sequence[str]) -> list[str]:
    """The missing files with results of single queries, for splits whose scores have such results."""
    return [
        f"{run.path.name}/evaluation/{split}.npz"
        for run in runs
        for split in splits
        if not run.queries.get(split)
        and any(metric(name).results is not None for name in run.reports[split]["scores"])
    ]


def note(groups: Mapping[str, Sequence["Evaluated"]], skipped: Sequence[str], missing: Sequence[str]) -> str:
    """State the number of seeds, how intervals were computed, and what the table omits."""
    counts = (f"{name}: {len(runs)} seed{'s' if len(runs) > 1 else ''}" for name, runs in groups.items())
    lines = [f"{', '.join(counts)}; ± is the standard deviation over seeds."]
    if len(groups) > 1:
        seeds = [len(runs) for runs in groups.values() if not runs[0].untrained] or [1]
        both, pictures = "over seeds and images together", "over images, by paired bootstrap"
        method = both if min(seeds) > 1 else pictures
        if min(seeds) == 1 < max(seeds):
            method = f"{both}, and {pictures} where a side has one seed"
        interval = f"[..] is the 95 % interval of the difference: {method}"
        lines.append(
            f"{interval}; captions of an image are resampled together. Within noise: it contains zero."
        )
        if min(seeds) < 3:
            lines.append("A claim needs at least three seeds on either side.")
    if missing:
        lines.append(
            f"Intervals are missing where results of single queries are missing: {', '.join(missing)}. "
            "`workbench evaluate RUN` restores them."
        )
    if skipped:
        names = list(dict.fromkeys(metric(result.rpartition(" ")[2]).label for result in skipped))
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        lines.append(f"Omitted, because some runs lack them: {', '.join(names[:MOST_NAMED])}{more}.")
    return "\n".join(lines)
