"""Parallel coordinates of the settings and results of many runs."""

import math
import textwrap

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame, Series
from pandas.api.types import is_numeric_dtype

from workbench.figures.style import INK, PALETTE, QUIET, finish

ROW = 19  # pixels between two categories on an axis
LINES = {11: 2, 9: 3}  # by the size of its letters, the most lines of a heading above its axis
ROOM = 670  # pixels for the names and all axes, in a narrow notebook
NARROW = 90  # pixels between two axes, below which headings are smaller
LETTER = 6.0  # pixels, the width of a character
SCALE = [[0, "#0077bb"], [0.5, "#882255"], [1, "#ee7733"]]


def parallel_figure(table: DataFrame, colour: str, *, title: str, subtitle: str = "") -> go.Figure:
    """Draw one line per row and one axis per column that varies. Drag along an axis to select lines.

    Numeric columns become numeric axes. Other columns list their values in the order of the table, shortened
    if the axes are too close. Lines are coloured by the column `colour`. Rows with missing values are
    dropped. Raises ValueError if no row remains.
    """
    known = table.dropna()
    if known.empty or colour not in known:
        raise ValueError(
            f"parallel_figure: {len(known)} rows without missing values, columns {list(table.columns)}, "
            f"colour {colour!r}; give at least one such row and a colour among the columns"
        )
    axes = [name for name in known if name == colour or known[name].nunique() > 1]
    longest = max((len(str(word)) for word in _words(known[axes[0]])), default=0)
    apart = (ROOM - LETTER * longest) / max(1, len(axes) - 1)  # pixels between two axes
    letters = max(6, int(0.75 * apart / LETTER))
    most = max([len(_words(known[name])) for name in axes] + [8])
    size = 9 if apart < NARROW else 11
    wide = min(24, max(9, math.ceil(apart / LETTER * 11 / size)))
    headings = {name: _wrapped(str(name), wide, LINES[size]) for name in axes}
    dimensions = [
        _axis(known[name], headings[name], letters if index else longest) for index, name in enumerate(axes)
    ]
    font = {"size": 11, "color": INK}
    lines = go.Parcoords(
        dimensions=dimensions,
        line={
            "color": _positions(known[colour]),
            "colorscale": _scale(known[colour]),
            "showscale": not _words(known[colour]),  # words are read off their axis
            "colorbar": {"title": {"text": headings[colour]}, "thickness": 12, "outlinewidth": 0},
        },
        labelfont=font | {"size": size},
        tickfont=font,
        rangefont={"size": 1, "color": "rgba(0,0,0,0)"},  # hidden, because the ticks include the ends
        unselected={"line": {"color": QUIET, "opacity": 0.12}},
    )
    figure = go.Figure(lines)
    top = 116
    height = top + ROW * most + 40
    margin = {"l": 30 + int(LETTER * longest), "r": 40, "t": top, "b": 30}
    finish(figure, title, subtitle, y=1 - 26 / height, height=height, margin=margin)
    return figure.update_layout(title={"xref": "container", "x": 0.01})


def _words(column: Series) -> list[object]:
    """The categories of a column, in order; empty for a numeric column."""
    return [] if is_numeric_dtype(column) else list(dict.fromkeys(column))


def _positions(column: Series) -> np.ndarray:
    """The positions of the values on their axis; categories run from top to bottom."""
    words = _words(column)
    if not words:
        return column.to_numpy(dtype=np.float32)
    return np.array([len(words) - 1 - words.index(value) for value in column], dtype=np.float32)


def _axis(column: Series, heading: str, letters: int) -> dict[str, object]:
    words = _words(column)
    axis: dict[str, object] = {"label": heading, "values": _positions(column)}
    if words:
        axis["tickvals"], axis["range"] = list(range(len(words))), [-0.5, len(words) - 0.5]
        axis["ticktext"] = [_cut(str(word), letters) for word in words[::-1]]
    return axis


def _wrapped(name: str, wide: int, most: int) -> str:
    """Wrap a heading at spaces and dots into at most `most` lines of about `wide` characters."""
    lines = textwrap.wrap(
        name.replace(".", ". "), wide, break_long_words=False, max_lines=most, placeholder=" …"
    )
    return "<br>".join(line.replace(". ", ".") for line in lines)


def _cut(word: str, letters: int) -> str:
    return word if len(word) <= letters else word[: letters - 1] + "…"


def _scale(column: Series) -> list[list[object]]:
    """A continuous colour scale for numbers, one colour per category otherwise."""
    count = len(_words(column))
    if not count:
        return SCALE
    colours = [PALETTE[index % len(PALETTE)] for index in range(count)][::-1]
    scale: list[list[object]] = [[index / max(count - 1, 1), colour] for index, colour in enumerate(colours)]
    return scale if count > 1 else 2 * scale
