"""The effect of a setting by its value: differences to a baseline with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.figures.style import INK, PALETTE, PAPER, finish, intervals

Dose = tuple[Any, float, float, float]  # the setting's value, the difference, its lower and upper end
APART = 0.07  # of the room between two values: lines do not hide each other's intervals


def dose_figure(
    lines: Mapping[str, Sequence[Dose]],
    *,
    title: str,
    subtitle: str = "",
    x_title: str = "",
    y_title: str = "",
) -> go.Figure:
    """A line for each of `lines` over the values of a setting, evenly spaced, with intervals around its dots.

    Filled dots: the interval excludes zero; hollow ones: it does not. All lines have the same values. Raises
    ValueError where they have not.
    """
    values = [[dose[0] for dose in doses] for doses in lines.values()]
    if not values or any(row != values[0] for row in values):
        raise ValueError(f"dose_figure: wants the same values of the setting on every line, got {values}")
    figure = go.Figure()
    figure.add_hline(y=0, line={"color": INK, "width": 1.2, "dash": "dot"})
    for number, (name, doses) in enumerate(lines.items()):
        middle, low, high = np.array([dose[1:] for dose in doses], dtype=np.float64).T
        colour = PALETTE[number % len(PALETTE)]
        fill = [colour if clear else PAPER for clear in (low > 0) | (high < 0)]
        figure.add_scatter(
            x=np.arange(len(doses)) + APART * (number - (len(lines) - 1) / 2),
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
