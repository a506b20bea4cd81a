"""Distributions of cosine similarities: of matching and non-matching pairs, and of any kinds of pairs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.figures.style import IMAGE, PALETTE, QUIET, finish

BINS = 50


def distribution_figure(spreads: Mapping[str, Any], *, title: str, subtitle: str = "") -> go.Figure:
    """Plot the densities of the cosines of matching and non-matching pairs, one panel per entry of `spreads`.

    The values are results of `similarity_distributions`: the cosines `matching` and `others`, and the `area`
    between both densities, which is written above the panel. All panels share their axes.
    """
    headings = [f"<b>{name}</b><br>area between {spread.area:.2f}" for name, spread in spreads.items()]
    figure = make_subplots(
        cols=len(spreads),
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=headings,
        horizontal_spacing=0.1 / len(spreads),
    )
    low = min(float(min(spread.matching.min(), spread.others.min())) for spread in spreads.values())
    edges = np.linspace(low, 1, BINS + 1)
    middles = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)
    for column, spread in enumerate(spreads.values(), start=1):
        sides = (spread.others, "not matching", QUIET), (spread.matching, "matching", IMAGE)
        for values, name, colour in sides:
            density, _ = np.histogram(np.minimum(values, 1), edges, density=True)
            figure.add_scatter(
                x=middles,
                y=density.astype(np.float32),
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                mode="lines",
                line={"color": colour, "shape": "hvh"},
                fill="tozeroy",
                row=1,
                col=column,
            )
        figure.update_xaxes(title_text="cosine", row=1, col=column)
    figure.update_annotations(font_size=12.5)
    figure.update_yaxes(title_text="density", col=1)
    return finish(
        figure, title, subtitle, y=0.94, height=360, margin={"t": 118, "b": 84},
        legend={"y": -0.28, "yanchor": "top"},
    )  # fmt: skip


def density_figure(
    values: Mapping[str, np.ndarray], *, title: str, subtitle: str = "", x_title: str = "cosine"
) -> go.Figure:
    """Plot the densities of several samples in one panel, one outline per entry of `values`."""
    low = min(float(sample.min()) for sample in values.values())
    high = max(float(sample.max()) for sample in values.values())
    edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    middles = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)
    figure = go.Figure()
    for (name, sample), colour in zip(values.items(), PALETTE, strict=False):
        density, _ = np.histogram(sample, edges, density=True)
        line = {"color": colour, "shape": "hvh", "width": 2}
        figure.add_scatter(x=middles, y=density.astype(np.float32), name=name, mode="lines", line=line)
    figure.update_xaxes(title_text=x_title)
    figure.update_yaxes(title_text="density")
    return finish(
        figure, title, subtitle, y=0.94, height=360, margin={"t": 84, "b": 84},
        legend={"y": -0.24, "yanchor": "top"},
    )  # fmt: skip
