"""HTML tables of runs and of their differing settings, with inline styles."""

import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from workbench.figures.style import FAINT, FONT, LINE, RULE, is_share, metric_label, on_page, state_colour
from workbench.recipe.yaml_io import in_yaml
from workbench.runs.table import RunRow, Score

COLUMNS = {"name": "run", "seed": "seed", "state": "state", "step": "step", "updated": "updated"}
RIGHT = ("seed", "step", "updated")
CELL = f"padding:4px 8px 4px 0;white-space:nowrap;border:0;border-bottom:1px solid {LINE}"
CELL += ";vertical-align:top;text-align:left"
HEAD = f"{CELL};font-weight:600;vertical-align:bottom;border-bottom:1px solid {RULE}"
NUMBER = ";text-align:right;font-variant-numeric:tabular-nums"
SMALL = f"display:block;font-size:11px;font-weight:400;color:{FAINT}"
LONGEST = 160  # characters of a reason; the tooltip has all of it


def runs_html(
    rows: Sequence[RunRow],
    scores: Sequence[Score],
    *,
    picked: Mapping[Path, str] | None = None,
    order: tuple[str | Score, bool] = ("updated", True),
    answers: bool = False,
) -> str:
    """A table with a row per run and a column for each of `scores`. Shares are in per cent.

    `picked` maps selected run folders to the colours of their curves. `order` is the column that the rows are
    sorted by, and whether the order is descending. With `answers` the table is interactive: selectable rows
    have a checkbox (`data-run`), headings have a button (`data-sort`), and times are shown as ages.
    """
    picked = picked or {}
    columns: list[str | Score] = [*list(COLUMNS)[:-1], *scores, "updated"]
    heads = "".join(_head(column, order, answers) for column in columns)
    lines = []
    for row in rows:
        cells = "".join(_cell(row, column, answers) for column in columns)
        key = f' data-run="{escape(str(row.path))}"' if answers and row.recipe is not None else ""
        lines.append(f"<tr{key}>{_mark(row, picked, answers)}{cells}</tr>")
    none = f'<tr><td style="{CELL}"></td><td colspan="{len(columns)}" style="{CELL}">none</td></tr>'
    return _table(f'<th style="{HEAD};width:26px"></th>{heads}', lines or [none])


def differences_html(
    settings: Mapping[str, Sequence[Any]], names: Sequence[str], colours: Sequence[str]
) -> str:
    """A table with a row per setting and a column per run. Values that differ from the first run are bold."""
    if not settings:
        text = "Their recipes differ in no setting that changes the outcome."
        return f'<div style="color:{FAINT};padding:4px 0">{text}</div>'
    wrapped = ";white-space:normal;overflow-wrap:anywhere;min-width:90px;max-width:280px"
    heads = f'<th style="{HEAD}">setting</th>' + "".join(
        f'<th style="{HEAD}{wrapped}">{_chip(colour)} {escape(name)}</th>'
        for name, colour in zip(names, colours, strict=True)
    )
    lines = []
    for setting, values in settings.items():
        cells = [f'<td style="{CELL}">{escape(setting)}</td>']
        for value in values:
            weight = ";font-weight:600" if value != values[0] else ""
            cells.append(f'<td style="{CELL}{wrapped}{weight}">{escape(in_yaml(value))}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return _table(heads, lines)


def page(*parts: str) -> str:
    """Pieces of HTML below each other, in the font of all figures."""
    return (
        f'<div style="font-family:{escape(FONT)};font-size:13px;line-height:1.35;'
        f'padding:8px;overflow-x:auto">{"".join(parts)}</div>'
    )


def age(seconds: float) -> str:
    """An age as text, in the largest unit of which it has at least two."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _table(heads: str, lines: Sequence[str]) -> str:
    return (
        f'<table style="border-collapse:collapse;margin:0;font-size:13px;border:0">'
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _head(column: str | Score, order: tuple[str | Score, bool], answers: bool) -> str:
    if isinstance(column, tuple):
        split, metric = column
        unit = ", %" if is_share(metric) else ""
        label = escape(metric_label(metric))
        label = f'<span style="{SMALL}">{escape(split)}{unit}</span>{label}'
        key, style = "/".join(column), f"{NUMBER};white-space:normal;max-width:100px"
    else:
        key, label, style = column, COLUMNS[column], NUMBER if column in RIGHT else ""
    sort = ""
    if column == order[0]:
        direction, arrow = ("descending", "▼") if order[1] else ("ascending", "▲")
        sort, label = f' aria-sort="{direction}"', f"{label} {arrow}"
    if answers:
        label = f'<button type="button" data-sort="{escape(key)}">{label}</button>'
    return f'<th{sort} style="{HEAD}{style}">{label}</th>'


def _mark(row: RunRow, picked: Mapping[Path, str], answers: bool) -> str:
    colour = picked.get(row.path)
    if not answers or row.recipe is None:
        return f'<td style="{CELL};text-align:center">{_chip(colour) if colour else ""}</td>'
    accent = f"accent-color:{colour};" if colour else ""
    attributes = f'aria-label="pick {escape(row.folder)}" style="{accent}margin:2px 0 0"'
    attributes += " checked" if colour else ""
    return f'<td style="{CELL};text-align:center"><input type="checkbox" {attributes}></td>'


def _cell(row: RunRow, column: str | Score, answers: bool) -> str:
    value = row.value(column)
    style = NUMBER if isinstance(column, tuple) or column in RIGHT else ""
    if column == "name":
        text, style = _name(row), ";white-space:normal;min-width:120px;max-width:340px"
    elif column == "state":
        text = f'<b style="font-weight:600;color:{on_page(state_colour(row.state))}">{escape(row.state)}</b>'
        if splits := ", ".join(dict.fromkeys(split for split, _ in row.scores)):
            narrow = f"{SMALL};white-space:normal;max-width:140px"
            text += f'<span style="{narrow}">evaluated on {escape(splits)}</span>'
    elif value is None:
        text = ""
    elif isinstance(column, tuple):
        text = f"{100 * value:.1f}" if is_share(column[1]) else f"{value:.4g}"
    elif column == "step":
        text = f"{value:,}" + ("" if row.total is None else f" / {row.total:,}")
    elif column == "updated":
        # In a saved notebook an age would become wrong.
        text = f"{age(time.time() - value)} ago" if answers else _date(value)
        style += ";white-space:normal"  # the date above the time where there is little room
    else:
        text = str(value)
    return f'<td style="{CELL}{style}">{text}</td>'


def _date(moment: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))
    except (ValueError, OverflowError, OSError):
        return ""  # not a valid date


def _name(row: RunRow) -> str:
    parts = [escape(row.name).replace("_", "_<wbr>")]
    if row.recipe is not None and row.recipe.trains != "student":
        trains = row.recipe.trains.replace("cross_modal", "cross-modal").replace("_", " ")
        parts.append(f'<span style="{SMALL}">trains the {escape(trains)}</span>')
    if row.folder != row.name:
        parts.append(f'<span style="{SMALL};overflow-wrap:anywhere">{escape(row.folder)}</span>')
    if row.reason:
        short = row.reason if len(row.reason) <= LONGEST else f"{row.reason[: LONGEST - 1]}…"
        style = f"{SMALL};color:{on_page('#b3541e')};overflow-wrap:anywhere"
        parts.append(f'<span title="{escape(row.reason)}" style="{style}">{escape(short)}</span>')
    return "".join(parts)


def _chip(colour: str) -> str:
    square = "display:inline-block;width:10px;height:10px;border-radius:2px"
    return f'<span style="{square};background:{colour}"></span>'
