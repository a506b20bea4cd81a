"""Effects of an ablation against its baseline, coloured if their interval excludes zero."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import plotly.graph_objects as go
from pandas import DataFrame, MultiIndex

from workbench.errors import SettingError, damaged_file
from workbench.figures.effect_chart import effect_chart
from workbench.figures.gallery import Gallery
from workbench.figures.sensitivity import Effect
from workbench.figures.style import FAINT, FONT, LINE, RULE, is_share, metric_label
from workbench.files import carried, read_json, unsigned
from workbench.reports.compare import compare
from workbench.reports.tables import difference_text, value_text
from workbench.runs.run import Run

Key = tuple[str, str]  # split, metric

RESULTS = carried("benchmarks/results")
MOST_ROWS = 15  # of a table; more are easier to compare in a chart

ORDER = "order.json"  # the file in a sweep's folder that lists its runs, the baseline first
# In the order in which they are read.
SHIPPED = (
    *("ablation_knowledge_clip.json", "ablation_clip_kd.json", "dclip.json"),
    *("ablation_all_three.json", "ablation_concepts.json", "ablation_knowledge_weights.json"),
    *("ablation_masking.json", "ablation_unseen_names.json", "ablation_capacity_gap.json"),
    "ablation_positions.json",
)

# Translucent, for light and dark pages. The marks convey the same without colour.
TINTS = {"higher": "rgba(0, 119, 187, 0.2)", "lower": "rgba(204, 51, 17, 0.2)"}
MARKS = {"higher": "▲ ", "lower": "▼ ", "within noise": "", "": ""}


class Results(NamedTuple):
    """A comparison read from JSON: the table of a `Comparison`, and its note."""

    table: DataFrame
    note: str


def read_results(path: Path) -> Results:
    """Read what `Comparison.to_json` or a benchmark script wrote. Raises SettingError for any other file."""
    try:
        content = read_json(path)
        cells = {
            (row["split"], row["metric"]): {
                (name, field): value
                for name, group in row["groups"].items()
                for field, value in group.items()
            }
            for row in content["rows"]
        }
        if not cells:
            raise ValueError("no rows")
        index = MultiIndex.from_tuples(cells, names=["split", "metric"])
        table = DataFrame(list(cells.values()), index=index)
        table.columns = MultiIndex.from_tuples(table.columns, names=["group", "field"])
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        problem = f"it contains no comparison ({error!r})"
        raise SettingError("sweep", str(path), problem, "Give a sweep's comparison.json.") from None
    numbers = [column for column in table.columns if column[1] != "verdict"]
    return Results(table.astype(dict.fromkeys(numbers, float)), content.get("note", ""))


def load_results(source: str) -> dict[str, Results]:
    """Load comparisons by name: the shipped ablations, a single file, or the runs of a sweep.

    `source` is "" for the ablations in benchmarks/results, the path of a file for `read_results`, or a
    sweep's folder, whose evaluated runs are compared. Raises SettingError if there is nothing to read.
    """
    if not source:
        paths = [RESULTS / name for name in SHIPPED if (RESULTS / name).is_file()]
        if not paths:
            remedy = "Use a checkout of the repository, or give a sweep's folder."
            raise SettingError("sweep", source, f"there are no results in {RESULTS}", remedy)
        return {path.stem.removeprefix("ablation_"): read_results(path) for path in paths}
    path = Path(source).expanduser()
    if path.is_file():
        return {path.stem: read_results(path)}
    runs = runs_of_sweep(path)
    if not runs:
        remedy = "Give the folder that `workbench sweep` wrote, or a comparison.json."
        raise SettingError("sweep", source, "it contains no evaluated run", remedy)
    comparison = compare(runs)
    return {path.name: Results(comparison.table, comparison.note)}


def runs_of_sweep(folder: Path) -> list[Run]:
    """The evaluated runs in a sweep's folder, in the order of the sweep, or in a folder of run folders.

    Raises SettingError for a damaged order, because another run would become the baseline.
    """
    reports = *folder.glob("*/run/evaluation/*.json"), *folder.glob("*/evaluation/*.json")
    folders = sorted({path.parents[1] for path in reports if (path.parents[1] / "recipe.yaml").is_file()})
    file = folder / ORDER
    try:
        content = unsigned(read_json(file)) if file.is_file() else []
        names = content["runs"] if isinstance(content, dict) else content  # older sweeps wrote the list alone
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError("it lists no runs")
    except (OSError, ValueError, KeyError) as error:
        remedy = "Run the sweep again, which writes this file and repeats no finished run."
        raise damaged_file("sweep", file, error, remedy) from None
    order = {name: index for index, name in enumerate(names)}
    folders.sort(key=lambda path: order.get(path.relative_to(folder).parts[0], len(order)))
    return [Run(path) for path in folders]


def known_keys(tables: Iterable[DataFrame], keys: Sequence[Key]) -> list[Key]:
    """The `keys` (split, metric) that all tables have. Raises SettingError, listing the metrics, if none."""
    tables = list(tables)
    known = [key for key in dict.fromkeys(keys) if all(key in table.index for table in tables)]
    if not known:
        metrics: dict[str, list[str]] = {}
        for split, metric in tables[0].index:
            metrics.setdefault(split, []).append(metric)
        available = "; ".join(f"on {split} {', '.join(names)}" for split, names in metrics.items())
        names = [" ".join(key) for key in keys]
        raise SettingError("split, metrics", names, "there are no such results", f"There are {available}.")
    return known


def sensitivity_line(table: DataFrame, key: Key, groups: Mapping[Any, str]) -> list[Effect]:
    """A line of `sensitivity_figure`: the effect of a setting on one metric. Shares are in points.

    `groups` maps values of the setting to groups of the table. The difference of the baseline is 0. The ends
    of a missing interval are NaN.
    """
    unit = 100.0 if is_share(key[1]) else 1.0
    baseline, row = table.columns[0][0], table.loc[key]
    return [
        (value, 0.0, 0.0, 0.0)
        if name == baseline
        else (value, *(unit * float(row[name, field]) for field in ("difference", "low", "high")))
        for value, name in groups.items()
    ]


def excluding_zero(table: DataFrame) -> tuple[int, int]:
    """The number of intervals of differences, and how many exclude zero. By chance it would be one in 20."""
    groups = list(dict.fromkeys(table.columns.get_level_values(0)))[1:]
    verdicts = [verdict for group in groups for verdict in table[group, "verdict"]]
    known = [verdict for verdict in verdicts if verdict in ("higher", "lower", "within noise")]
    return len(known), len(known) - known.count("within noise")


def show_effects(
    table: DataFrame, columns: Sequence[Key], groups: Sequence[str] | None = None
) -> "Gallery | go.Figure":
    """The table of `effects`, or where it has more than MOST_ROWS rows its chart."""
    rows = _rows(table, groups)
    if len(rows) <= MOST_ROWS:
        return effects(table, columns, groups)
    keys = [key for key in columns if key in table.index]
    return effect_chart(table, keys, rows, title=f"Differences to {rows[0]}, points")


def effects(table: DataFrame, columns: Sequence[Key], groups: Sequence[str] | None = None) -> Gallery:
    """An HTML table with a row per group and a column per metric: values, and differences to the first group.

    `columns` are the (split, metric) to show, in order; those that the table lacks are skipped. `groups`
    restricts the rows to these groups and the baseline. A difference whose 95 % interval excludes zero is
    marked and coloured, blue for an increase and red for a decrease. Shares are in per cent.
    """
    baseline, *others = _rows(table, groups)
    keys = [key for key in columns if key in table.index]
    lines = []
    for name in (baseline, *others):
        cells = [(f"<b>{escape(name)}</b>", "")]
        for key in keys:
            row = table.loc[key][name]
            text, verdict = value_text(row, key[1]), ""
            if name != baseline:
                verdict = row["verdict"]
                text += f"<br>{MARKS[verdict]}{difference_text(row, key[1])}".replace(" [", "<br>[")
            cells.append((text, verdict))
        lines.append(cells)
    note = "± is the standard deviation over seeds."
    return effect_page(["", *map(_heading, keys)], lines, baseline=baseline, note=note)


def effect_page(
    heads: Sequence[str],
    lines: Iterable[Sequence[tuple[str, str]]],
    *,
    baseline: str = "the baseline",
    note: str = "",
) -> Gallery:
    """An HTML table of cells with their verdicts, which give the colours, and a legend below."""
    many = len(heads) > 8  # closer together, for a window of 1,000 pixels
    cell = f"padding:4px {2 if many else 5}px 4px {2 if many else 4}px;text-align:left;vertical-align:top"
    cell += f";border:0;border-bottom:1px solid {LINE}"
    head = f"{cell};font-weight:600;border-bottom:1px solid {RULE};vertical-align:bottom"
    whole = ";white-space:nowrap" if len(heads) < 10 else ""  # more columns fit only if intervals may break
    rows = ["".join(f'<th style="{head}">{text}</th>' for text in heads)]
    for cells in lines:
        row = ""
        for number, (text, verdict) in enumerate(cells):
            wide = whole if number else ";min-width:7em;max-width:17em"
            row += f'<td style="{cell};background:{TINTS.get(verdict, "none")}{wide}">{text}</td>'
        rows.append(row)
    tint = '<span style="padding:0 4px;background:'
    higher, lower = f'{tint}{TINTS["higher"]}">▲ higher</span>', f'{tint}{TINTS["lower"]}">▼ lower</span>'
    legend = (
        f"{higher} and {lower} than {escape(baseline)}: the 95 % interval in brackets excludes zero. "
        f"Uncoloured: within noise. {note}"
    )
    return Gallery(
        f'<div style="font-family:{escape(FONT)};padding:8px;overflow-x:auto">'
        f'<table style="border-collapse:collapse;font-size:{12 if many else 12.5}px;border:0">'
        f"{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
        f'<div style="color:{FAINT};font-size:12px;margin-top:8px">{legend}</div></div>'
    )


def _rows(table: DataFrame, groups: Sequence[str] | None) -> list[str]:
    """The baseline and the chosen `groups`, all if None."""
    baseline, *others = dict.fromkeys(table.columns.get_level_values(0))
    return [baseline, *(name for name in others if groups is None or name in groups)]


def _heading(key: Key) -> str:
    split = f'<span style="font-weight:400;color:{FAINT}">{escape(key[0])}</span>'
    return f"{split}<br>{escape(metric_label(key[1]))}"
