"""Reliability diagrams: accuracy against confidence."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from workbench.figures.style import QUIET, finish, run_colours


def reliability_figure(models: Mapping[str, Any], *, title: str, subtitle: str = "") -> go.Figure:
    """Plot the `calibration_curve` of every model, one dot per bin, and the diagonal of perfect calibration.

    Curves have `confidence`, `accuracy` and `queries` per bin, and `error`, the expected calibration error
    (ECE). Both axes are in per cent and end at the largest value. The first model, the baseline, is grey.
    """
    top = max(float(np.max([curve.confidence, curve.accuracy])) for curve in models.values())
    figure = go.Figure()
    diagonal, line = [0, 100 * top], {"color": QUIET, "width": 1.5, "dash": "dot"}
    figure.add_scatter(
        x=diagonal, y=diagonal, mode="lines", line=line, name="perfect calibration", hoverinfo="skip"
    )
    for (name, curve), colour in zip(models.items(), run_colours(models).values(), strict=True):
        figure.add_scatter(
            x=(100 * np.asarray(curve.confidence)).astype(np.float32),
            y=(100 * np.asarray(curve.accuracy)).astype(np.float32),
            customdata=np.asarray(curve.queries),
            mode="lines+markers",
            line={"color": colour, "width": 1.8},
            marker={"color": colour, "size": 7},
            name=f"{name} (ECE {curve.error:.1%})",
            hovertemplate="confidence %{x:.1f} %, accuracy %{y:.1f} %, %{customdata} queries",
        )
    ends = [-4 * top, 104 * top]  # room for whole dots at both ends
    figure.update_xaxes(title_text="confidence, per cent", range=ends)
    figure.update_yaxes(title_text="accuracy, per cent", range=ends)
    return finish(
        figure, title, subtitle, y=0.94, height=420, margin={"t": 84, "b": 104, "l": 64},
        legend={"y": -0.22, "yanchor": "top"}, hovermode="closest",
    )  # fmt: skip
