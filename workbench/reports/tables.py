"""Comparison tables as aligned text for terminals and as HTML with inline styles."""

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from pandas import DataFrame, Series

from workbench.figures.style import FAINT, FONT, LINE, PALETTE, RULE, is_share, metric_label, on_page

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

Cell = tuple[str, str | None]  # a text, and for differences the verdict

MARKS = {"higher": "▲ higher", "lower": "▼ lower", "within noise": "within noise", "": ""}
COLOURS = {"higher": on_page(PALETTE[0]), "lower": on_page(PALETTE[7])}


def words_left(table: DataFrame) -> "Styler":
    """The table as a notebook shows it, with words and the names of rows to the left, numbers to the right."""
    worded = [number for number, name in enumerate(table) if table[name].map(_is_words).any()]
    selectors = [f"th.col{number}.col_heading, td.col{number}" for number in worded]
    left = [("text-align", "left")]
    names = {"selector": "th.row_heading, th.index_name", "props": left}
    return table.style.set_table_styles(
        [names, *({"selector": selector, "props": left} for selector in selectors)]
    )


def _is_words(value: object) -> bool:
    return isinstance(value, str) and any(letter.isalpha() for letter in value)


def shown_rows(table: DataFrame) -> DataFrame:
    """The rows whose metric has results of single queries, hence an interval; all rows if none has."""
    queries = table[table.columns.get_level_values(0)[0], "queries"]
    return table[queries > 0] if (queries > 0).any() else table


def _cells(table: DataFrame) -> tuple[list[str], dict[str, list[list[Cell]]]]:
    """The headings, and the rows of cells by split."""
    baseline, *others = dict.fromkeys(table.columns.get_level_values(0))
    blocks: dict[str, list[list[Cell]]] = {}
    for (split, metric), row in shown_rows(table).iterrows():
        cells: list[Cell] = [(metric_label(metric), None), (value_text(row[baseline], metric), None)]
        for group in others:
            cells.append((value_text(row[group], metric), None))
            cells.append((difference_text(row[group], metric), row[group]["verdict"]))
        blocks.setdefault(split, []).append(cells)
    heads = [head for group in others for head in (group, f"minus {baseline}")]
    return ["per cent", baseline, *heads], blocks


def comparison_text(table: DataFrame, sizes: Mapping[str, str], note: str) -> str:
    """The table as aligned plain text, with one block per split and shares in per cent."""
    heads, blocks = _cells(table)
    texts = {
        split: [[f"{text} {verdict or ''}".rstrip() for text, verdict in cells] for cells in rows]
        for split, rows in blocks.items()
    }
    body = [cells for rows in texts.values() for cells in rows]
    for cells in body:
        cells[0] = f"  {cells[0]}"
    widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]

    def aligned(cells: list[str]) -> str:
        return "   ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    lines = [aligned(heads)]
    for split, rows in texts.items():
        lines += [f"{split}: {sizes[split]}", *map(aligned, rows)]
    return "\n".join([*lines, "", note])


def comparison_html(table: DataFrame, sizes: Mapping[str, str], note: str) -> str:
    """The table as HTML with inline styles, with one block per split and shares in per cent."""
    (unit, *heads), blocks = _cells(table)
    cell = "padding:3px 6px 3px 0;text-align:left;white-space:nowrap;border:0"
    head = f"{cell};font-weight:600;border-bottom:1px solid {RULE};vertical-align:bottom"
    top = f'<th style="{head};font-weight:400;color:{FAINT}">{unit}</th>'
    names = (escape(text).replace("_", "_<wbr>") for text in heads)
    top += "".join(f'<th style="{head};white-space:normal">{name}</th>' for name in names)
    lines = []
    for split, rows in blocks.items():
        size = f'<span style="color:{FAINT}">{escape(sizes[split])}</span>'
        style = f'colspan="{1 + len(heads)}" style="{cell};padding-top:12px"'
        lines.append(f"<tr><td {style}><b>{escape(split)}</b> {size}</td></tr>")
        for cells in rows:
            texts = (
                escape(text) if verdict is None else f"{text} {_mark(verdict)}" for text, verdict in cells
            )
            data = (f'<td style="{cell};border-bottom:1px solid {LINE}">{text}</td>' for text in texts)
            lines.append(f"<tr>{''.join(data)}</tr>")
    notes = "".join(f"<div>{escape(line)}</div>" for line in note.split("\n"))
    return (
        f'<div style="font-family:{escape(FONT)};font-size:13px;padding:8px;overflow-x:auto">'
        f'<table style="border-collapse:collapse;font-size:13px;border:0">'
        f"<thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
        f'<div style="color:{FAINT};font-size:12px;margin-top:10px;max-width:60em">{notes}</div></div>'
    )


def value_text(row: "Series[Any]", metric: str) -> str:
    """A value with its spread over seeds."""
    factor, form = (100, ".1f") if is_share(metric) else (1, ".4g")
    spread = "" if row["spread"] != row["spread"] else f" ±{factor * row['spread']:{form}}"
    return f"{factor * row['value']:{form}}{spread}"


def difference_text(row: "Series[Any]", metric: str) -> str:
    """A difference with its interval, if it has one."""
    factor, form = (100, "+z.1f") if is_share(metric) else (1, "+z.4g")
    middle, low, high = (f"{factor * row[key]:{form}}" for key in ("difference", "low", "high"))
    return middle if row["low"] != row["low"] else f"{middle} [{low}, {high}]"


def _mark(verdict: str) -> str:
    weight = 600 if verdict in ("higher", "lower") else 400
    return f'<span style="color:{COLOURS.get(verdict, FAINT)};font-weight:{weight}">{MARKS[verdict]}</span>'
