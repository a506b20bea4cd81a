"""Comparison tables for people: aligned text for a terminal, HTML that keeps its looks wherever it is
pasted."""

from collections.abc import Mapping
from html import escape
from typing import Any

from pandas import DataFrame, Series

from workbench.figures.style import BASELINE, FONT, GRID, INK, PALETTE, QUIET, is_share, metric_label

MARKS = {"higher": "▲ higher", "lower": "▼ lower", "within noise": "within noise", "": ""}
COLOURS = {"higher": PALETTE[0], "lower": PALETTE[7], "within noise": QUIET, "": QUIET}


def shown_rows(table: DataFrame) -> DataFrame:
    """The rows whose metric has a result for every query, hence an interval; all rows where none has."""
    queries = table[table.columns.get_level_values(0)[0], "queries"]
    return table[queries > 0] if (queries > 0).any() else table


def comparison_text(table: DataFrame, sizes: Mapping[str, str], note: str) -> str:
    """The table as aligned plain text, shares in per cent, one block a split."""
    groups = list(dict.fromkeys(table.columns.get_level_values(0)))
    rows = shown_rows(table)
    lines: list[list[str]] = []
    headings: dict[int, str] = {}
    for split in dict.fromkeys(rows.index.get_level_values(0)):
        headings[len(lines)] = f"{split}: {sizes[split]}"
        for metric, row in rows.loc[split].iterrows():
            cells = [f"  {metric_label(metric)}"]
            for group in groups:
                cells.append(value_text(row[group], metric))
                if group != groups[0]:
                    cells.append(f"{difference_text(row[group], metric)} {row[group]['verdict']}".rstrip())
            lines.append(cells)
    top = ["per cent"]
    for group in groups:
        top += [group] if group == groups[0] else [group, f"minus {groups[0]}"]
    widths = [max(len(line[column]) for line in [top, *lines]) for column in range(len(top))]

    def aligned(cells: list[str]) -> str:
        return "   ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    text = [aligned(top)]
    for number, line in enumerate(lines):
        text += [headings[number]] if number in headings else []
        text.append(aligned(line))
    return "\n".join([*text, "", note])


def comparison_html(table: DataFrame, sizes: Mapping[str, str], note: str) -> str:
    """The table as HTML with styles of its own, shares in per cent, one block a split."""
    groups = list(dict.fromkeys(table.columns.get_level_values(0)))
    rows = shown_rows(table)
    cell = "padding:3px 14px 3px 0;text-align:left;white-space:nowrap;border:0;background:#fff"
    head = f"{cell};font-weight:600;border-bottom:1px solid {BASELINE};vertical-align:bottom"
    top = [f'<th style="{head};font-weight:400;color:{QUIET}">per cent</th>']
    for group in groups:
        top.append(f'<th style="{head};white-space:normal">{escape(group)}</th>')
        if group != groups[0]:
            top.append(f'<th style="{head};white-space:normal">minus {escape(groups[0])}</th>')
    lines = []
    for split in dict.fromkeys(rows.index.get_level_values(0)):
        lines.append(
            f'<tr><td colspan="{len(top)}" style="{cell};padding-top:12px"><b>{escape(split)}</b> '
            f'<span style="color:{QUIET}">{escape(sizes[split])}</span></td></tr>'
        )
        for metric, row in rows.loc[split].iterrows():
            line = [f'<td style="{cell};border-bottom:1px solid {GRID}">{escape(metric_label(metric))}</td>']
            for group in groups:
                line.append(
                    f'<td style="{cell};border-bottom:1px solid {GRID}">{value_text(row[group], metric)}</td>'
                )
                if group != groups[0]:
                    line.append(
                        f'<td style="{cell};border-bottom:1px solid {GRID}">{_difference_html(row[group], metric)}</td>'
                    )
            lines.append(f"<tr>{''.join(line)}</tr>")
    notes = "".join(f"<div>{escape(line)}</div>" for line in note.split("\n"))
    return (
        f'<div style="font-family:{escape(FONT)};font-size:13px;color:{INK};background:#fff;padding:8px;overflow-x:auto">'
        f'<table style="border-collapse:collapse;font-size:13px;color:{INK};border:0">'
        f"<thead><tr>{''.join(top)}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
        f'<div style="color:{QUIET};font-size:12px;margin-top:10px;max-width:60em">{notes}</div></div>'
    )


def value_text(row: "Series[Any]", metric: str) -> str:
    """A value with its spread over seeds."""
    factor, form = (100, ".1f") if is_share(metric) else (1, ".4g")
    spread = "" if row["spread"] != row["spread"] else f" ±{factor * row['spread']:{form}}"
    return f"{factor * row['value']:{form}}{spread}"


def difference_text(row: "Series[Any]", metric: str) -> str:
    """A difference with its interval, where it has one."""
    factor, form = (100, "+.1f") if is_share(metric) else (1, "+.4g")
    middle, low, high = (f"{factor * row[key]:{form}}" for key in ("difference", "low", "high"))
    return middle if row["low"] != row["low"] else f"{middle} [{low}, {high}]"


def _difference_html(row: "Series[Any]", metric: str) -> str:
    colour, weight = COLOURS[row["verdict"]], 600 if row["verdict"] in ("higher", "lower") else 400
    return f'{difference_text(row, metric)} <span style="color:{colour};font-weight:{weight}">{MARKS[row["verdict"]]}</span>'
