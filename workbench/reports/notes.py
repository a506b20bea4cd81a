"""What a comparison says below its table."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from workbench.metrics import metric

if TYPE_CHECKING:
    from workbench.reports.compare import Evaluated


def without_queries(runs: Sequence["Evaluated"], splits: Sequence[str]) -> list[str]:
    """The files of single queries that are not there, though numbers of theirs are."""
    return [
        f"{run.path.name}/evaluation/{split}.npz"
        for run in runs
        for split in splits
        if not run.queries.get(split)
        and any(metric(name).results is not None for name in run.reports[split]["scores"])
    ]


def note(groups: Mapping[str, Sequence["Evaluated"]], skipped: Sequence[str], missing: Sequence[str]) -> str:
    """How many seeds there are, how intervals were made, and what is not in the table."""
    counts = (f"{name}: {len(runs)} seed{'s' if len(runs) > 1 else ''}" for name, runs in groups.items())
    lines = [f"{', '.join(counts)}; ± is the standard deviation over seeds."]
    if len(groups) > 1:
        seeds = [len(runs) for runs in groups.values() if not runs[0].untrained] or [1]
        both, pictures = "over seeds and images together", "over images, by paired bootstrap"
        method = both if min(seeds) > 1 else pictures
        if min(seeds) == 1 < max(seeds):
            method = f"{both}, and {pictures} where a side has one seed"
        interval = f"[..] is the 95 % interval of the difference: {method}"
        lines.append(f"{interval}; captions of an image move together. Within noise: it holds zero.")
        if min(seeds) < 3:
            lines.append("A claim wants three seeds or more on either side.")
    if missing:
        lines.append(
            f"There are no intervals where results of single queries are missing: {', '.join(missing)}. "
            "`workbench evaluate RUN` writes them again."
        )
    if skipped:
        lines.append(f"Not in every run, so left out: {', '.join(skipped)}.")
    return "\n".join(lines)
