"""A chart of effects, for tables with many rows: differences to the baseline as dots with intervals."""

import textwrap
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame
from plotly.subplots import make_subplots

from workbench.figures.style import (
    BASELINE,
    INK,
    PALETTE,
    PAPER,
    QUIET,
    finish,
    heading,
    intervals,
    is_share,
    metric_label,
)

COLOURS = {"higher": PALETTE[0], "lower": PALETTE[7]}  # otherwise within noise
ROW, TOP, BOTTOM = 24, 190, 44  # pixels: one row, above and below all rows
LETTER = 6.4  # pixels, the width of a character of a row's name
LETTERS = 72  # that fit beside each other above all panels, in a narrow notebook


def effect_chart(
    table: DataFrame, keys: Sequence[tuple[str, str]], groups: Sequence[str], *, title: str
) -> go.Figure:
    """Plot the difference of every group to the first, with its interval: a row per group, a panel per metric

    `table` is `Comparison.table`, `keys` are the (split, metric) of the panels, and `groups` has the baseline
    first. Shares are in points. Blue and red dots mark intervals above and below zero, hollow grey dots
    intervals that contain it.
    """
    baseline, *others = groups
    figure = make_subplots(rows=1, cols=len(keys), shared_yaxes=True, horizontal_spacing=0.016)
    y = np.arange(len(others))
    wide = max(9, LETTERS // len(keys))
    for column, key in enumerate(keys, start=1):
        unit = 100.0 if is_share(key[1]) else 1.0
        rows = [table.loc[key][name] for name in others]
        value, middle, low, high = (
            unit * np.array([row[field] for row in rows], dtype=np.float64)
            for field in ("value", "difference", "low", "high")
        )
        for verdict in (*COLOURS, ""):
            chosen = np.array(
                [(row["verdict"] if row["verdict"] in COLOURS else "") == verdict for row in rows]
            )
            if not chosen.any():
                continue
            colour = COLOURS.get(verdict, QUIET)
            figure.add_scatter(
                x=middle[chosen],
                y=y[chosen],
                error_x=intervals(middle[chosen], low[chosen], high[chosen], colour, 1.8),
                mode="markers",
                marker={
                    "size": 8,
                    "color": colour if verdict else PAPER,
                    "line": {"color": colour, "width": 1.6},
                },
                text=[name for name, row in zip(others, chosen, strict=True) if row],
                customdata=np.stack([value, low, high], axis=1)[chosen],
                hovertemplate="%{text}: %{customdata[0]:.1f}<br>%{x:+.1f} [%{customdata[1]:+.1f}, "
                "%{customdata[2]:+.1f}]<extra></extra>",
                showlegend=False,
                row=1,
                col=column,
            )
        figure.update_xaxes(tickvals=_ticks(np.concatenate([middle, low, high])), row=1, col=column)
        figure.add_vline(x=0, line={"color": BASELINE, "width": 1}, layer="below", row=1, col=column)
        left = figure.get_subplot(1, column).xaxis.domain[0]
        start = unit * float(table.loc[key, (baseline, "value")])
        split = f'<span style="color:{QUIET}">{_wrapped(key[0], wide)}</span>'
        text = f"{split}<br>{_wrapped(metric_label(key[1]), wide)}<br><b>{start:.1f}</b>"
        figure.add_annotation(heading(text, left, 1) | {"font": {"size": 11.5}})
    figure.update_yaxes(range=[len(others) - 0.4, -0.6], showgrid=True, tickvals=y, ticktext=others)
    figure.update_yaxes(tickfont={"size": 12, "color": INK}, col=1)
    figure.update_xaxes(rangemode="tozero", tickangle=0)
    height = TOP + BOTTOM + ROW * len(others)
    margin = {"t": TOP, "b": BOTTOM, "l": 20 + int(LETTER * max(map(len, others)))}
    subtitle = f"Bold: {baseline}. Blue and red: the 95 % interval excludes zero. Hollow: within noise."
    return finish(
        figure, title, subtitle, y=1 - 22 / height, height=height, margin=margin, hovermode="closest"
    )


def _ticks(values: np.ndarray) -> list[float]:
    """Zero, and to either side a round number not far below the largest absolute value."""
    most = 0.75 * float(np.nanmax(np.abs(values), initial=1e-6))
    power = 10.0 ** np.floor(np.log10(most))
    step = power * max(factor for factor in (1, 2, 3, 4, 5, 6, 8) if factor == 1 or factor * power <= most)
    return [-step, 0.0, step]


def _wrapped(text: str, wide: int) -> str:
    lines = textwrap.wrap(text.replace("_", "_ "), wide, break_long_words=False)
    return "<br>".join(lines).replace("_ ", "_")
