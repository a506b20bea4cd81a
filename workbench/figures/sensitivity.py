"""Sensitivity of results to a setting: the difference to a baseline at each value, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.figures.style import INK, PALETTE, PAPER, finish, intervals

Effect = tuple[Any, float, float, float]  # the setting's value, the difference, the ends of its interval
APART = 0.07  # shift between lines, as a share of the distance between two values; keeps intervals visible


def sensitivity_figure(
    lines: Mapping[str, Sequence[Effect]],
    *,
    title: str,
    subtitle: str = "",
    x_title: str = "",
    y_title: str = "",
) -> go.Figure:
    """Plot the effect of a setting against its values, one line per entry of `lines`, with intervals.

    The values are evenly spaced. A filled dot means that the interval excludes zero, a hollow one that it
    does not. Raises ValueError unless all lines have the same values of the setting.
    """
    values = [[effect[0] for effect in effects] for effects in lines.values()]
    if not values or any(row != values[0] for row in values):
        raise ValueError(f"sensitivity_figure: all lines need the same values of the setting, got {values}")
    figure = go.Figure()
    figure.add_hline(y=0, line={"color": INK, "width": 1.2, "dash": "dot"})
    for number, (name, effects) in enumerate(lines.items()):
        middle, low, high = np.array([effect[1:] for effect in effects], dtype=np.float64).T
        colour = PALETTE[number % len(PALETTE)]
        fill = [colour if clear else PAPER for clear in (low > 0) | (high < 0)]
        figure.add_scatter(
            x=np.arange(len(effects)) + APART * (number - (len(lines) - 1) / 2),
            y=middle,
            error_y=intervals(middle, low, high, colour, 1.6),
            customdata=np.stack([low, high], axis=1),
            mode="lines+markers",
            line={"color": colour, "width": 1.8},
            marker={"size": 9, "color": fill, "line": {"color": colour, "width": 2}},
            name=name,
            hovertemplate="%{y:+.1f} [%{customdata[0]:+.1f}, %{customdata[1]:+.1f}]",
        )
    ticks = [str(value) for value in values[0]]
    figure.update_xaxes(title_text=x_title, tickvals=list(range(len(ticks))), ticktext=ticks)
    figure.update_yaxes(title_text=y_title)
    return finish(
        figure, title, subtitle, y=0.94, height=380, margin={"t": 84, "b": 96, "l": 64},
        showlegend=len(lines) > 1, legend={"y": -0.22, "yanchor": "top"}, hovermode="closest",
    )  # fmt: skip
