"""A line plot with one line per name."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.figures.style import PALETTE, finish

Values = Sequence[Any] | np.ndarray


def line_figure(
    lines: Mapping[str, tuple[Values, Values]],
    *,
    title: str,
    subtitle: str = "",
    x_title: str = "",
    y_title: str = "",
    x_axis: Mapping[str, Any] | None = None,
    y_axis: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
) -> go.Figure:
    """Draw one line with markers for each entry of `lines`, which maps names to (x, y).

    `x_axis` and `y_axis` are plotly's axis settings, for instance `{"type": "log"}`. `labels` are written at
    the points of the first line, for one whose order its axes do not show.
    """
    figure = go.Figure()
    for number, (name, (x, y)) in enumerate(lines.items()):
        line = {"color": PALETTE[number % len(PALETTE)]}
        figure.add_scatter(x=x, y=y, name=name, mode="lines+markers", line=line)
    if labels:
        figure.data[0].update(
            mode="lines+markers+text", text=labels, textposition="top right", cliponaxis=False
        )
    finish(
        figure, title, subtitle, y=0.94, height=360, margin={"t": 84, "b": 92, "l": 64},
        showlegend=len(lines) > 1, legend={"y": -0.25, "yanchor": "top"},
    )  # fmt: skip
    figure.update_xaxes(title_text=x_title, **(x_axis or {}))
    figure.update_yaxes(title_text=y_title, **(y_axis or {}))
    return figure
