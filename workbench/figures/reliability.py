"""Reliability diagrams: how sure a model is against how often it is right."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import plotly.graph_objects as go

from workbench.figures.style import QUIET, run_colours, template


@runtime_checkable
class Reliability(Protocol):
    """What `workbench.evaluation.calibration_curve` gives."""

    @property
    def confidence(self) -> np.ndarray: ...
    @property
    def accuracy(self) -> np.ndarray: ...
    @property
    def queries(self) -> np.ndarray: ...
    @property
    def error(self) -> float: ...


def reliability_figure(
    models: Mapping[str, Reliability], *, title: str, subtitle: str = "", most: float | None = None
) -> go.Figure:
    """A line with a dot for every bin of each of `models`, and the line on which all would lie if calibrated.

    Per cent. Both axes end at the largest confidence or accuracy, or at `most` (a share). The first model is
    grey, the baseline.
    """
    top = most or max(float(np.max([each.confidence, each.accuracy])) for each in models.values())
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 100 * top],
        y=[0, 100 * top],
        mode="lines",
        line={"color": QUIET, "width": 1.5, "dash": "dot"},
        name="as sure as right",
        hoverinfo="skip",
    )
    for (name, each), colour in zip(models.items(), run_colours(models).values(), strict=True):
        figure.add_scatter(
            x=(100 * np.asarray(each.confidence)).astype(np.float32),
            y=(100 * np.asarray(each.accuracy)).astype(np.float32),
            customdata=np.asarray(each.queries),
            mode="lines+markers",
            line={"color": colour, "width": 1.8},
            marker={"color": colour, "size": 7},
            name=f"{name} (ECE {each.error:.1%})",
            hovertemplate="%{x:.1f} % sure, %{y:.1f} % right, %{customdata} queries",
        )
    figure.update_layout(
        template=template(),
        height=420,
        margin={"t": 84, "b": 104, "l": 64},
        title={"text": title, "subtitle": {"text": subtitle}, "y": 0.94},
        legend={"y": -0.22, "yanchor": "top"},
        hovermode="closest",
    )
    ends = [-4 * top, 104 * top]  # a dot at an end is whole
    figure.update_xaxes(title_text="confidence, per cent", range=ends)
    figure.update_yaxes(title_text="right, per cent", range=ends)
    return figure
