"""Describes differences between runs in words: higher, lower or within noise."""

from collections.abc import Sequence

from pandas import DataFrame

from workbench.figures.style import metric_label
from workbench.reports.benchmark_tables import Measured
from workbench.reports.tables import difference_text

VERDICTS = {"higher": "higher", "lower": "lower", "within noise": "within noise", "": "without an interval"}


def in_words(table: DataFrame, metrics: Sequence[str]) -> Measured:
    """Write a line of Markdown for each split and group but the first: what is higher, lower or within noise.

    `table` is `Comparison.table`. Metrics that it lacks are skipped. Differences without an interval and
    groups of fewer than three seeds are marked.
    """
    groups = list(dict.fromkeys(table.columns.get_level_values(0)))
    lines = []
    for split in dict.fromkeys(table.index.get_level_values(0)):
        rows = {metric: table.loc[split, metric] for metric in metrics if (split, metric) in table.index}
        for group in groups[1:] if rows else []:
            texts: dict[str, list[str]] = {}
            for metric, row in rows.items():
                text = f"{metric_label(metric)} {difference_text(row[group], metric)}"
                texts.setdefault(row[group, "verdict"], []).append(text)
            parts = [f"{words}: {', '.join(texts[key])}" for key, words in VERDICTS.items() if key in texts]
            few = min(int(next(iter(rows.values()))[name, "seeds"]) for name in (groups[0], group))
            caveat = f" *{few} seed{'s' if few > 1 else ''}: other seeds may differ.*" if few < 3 else ""
            lines.append(f"- {split}, **{group}** against {groups[0]}: {'; '.join(parts)}.{caveat}")
    return Measured("\n".join(lines) or "There is nothing to compare.")
