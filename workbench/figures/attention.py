"""Attention between a picture's regions and a caption's words: heat maps, and the weights of pooling."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from workbench.figures.style import IMAGE, INK, QUIET, TEXT, template

READ_OFF = 8  # heat maps of so many columns or fewer have room for numbers
ROW = 26  # pixels: one word
LONGEST = 15  # letters of a word on an axis; hovering shows all
REGIONS, WORDS = [[0, "#ffffff"], [0.6, IMAGE], [1, "#00564d"]], [[0, "#ffffff"], [0.6, TEXT], [1, "#4a0f2c"]]


def attention_heatmap(
    attention: Float[np.ndarray, "queries keys"],
    queries: Sequence[str],
    keys: Sequence[str],
    *,
    chosen: int | None = None,
    most: float | None = None,
    turned: bool = False,
    title: str = "",
    subtitle: str = "",
) -> go.Figure:
    """What each query looks at: words at regions, or regions at words; every row sums to 1.

    The darkest colour is `most`, by default the largest value. A frame marks the query `chosen`. `turned`
    draws queries from left to right and keys from top to bottom, in the colour of text: so token-to-region
    and, turned, region-to-token stand side by side with the same axes.
    """
    if attention.shape != (len(queries), len(keys)):
        raise ValueError(f"attention {attention.shape} of {len(queries)} queries and {len(keys)} keys")
    shown = attention.T if turned else attention
    rows, columns = (keys, queries) if turned else (queries, keys)
    told = [
        [f"{query} → {key}: {value:.1%}" for key, value in zip(keys, row, strict=True)]
        for query, row in zip(queries, attention, strict=True)
    ]
    figure = go.Figure(
        go.Heatmap(
            z=np.asarray(shown, dtype=np.float32),
            zmin=0,
            zmax=most or float(attention.max()),
            colorscale=WORDS if turned else REGIONS,
            showscale=False,
            xgap=1,
            ygap=1,
            texttemplate="%{z:.0%}" if len(columns) <= READ_OFF else None,
            textfont={"size": 10.5},
            text=[list(column) for column in zip(*told, strict=True)] if turned else told,
            hovertemplate="%{text}<extra></extra>",
            name="region to token" if turned else "token to region",
        )
    )
    if chosen is not None:
        frame = [chosen - 0.5, chosen + 0.5, chosen + 0.5, chosen - 0.5, chosen - 0.5]
        long = [-0.5, -0.5, len(keys) - 0.5, len(keys) - 0.5, -0.5]
        figure.add_scatter(
            x=frame if turned else long,
            y=long if turned else frame,
            mode="lines",
            line={"color": INK, "width": 2.5},
            hoverinfo="skip",
            cliponaxis=False,
            name="chosen",
        )
    figure.update_layout(
        template=template(),
        title={"text": title, "subtitle": {"text": subtitle}},
        height=ROW * len(rows) + 84 + 40,
        showlegend=False,
        dragmode=False,
        hovermode="closest",
        xaxis=_names(columns),
        yaxis=_names(rows) | {"range": [len(rows) - 0.5, -0.5]},
    )
    return figure


def pooling_bars(
    token_pooling: Float[np.ndarray, " s"],
    region_pooling: Float[np.ndarray, " r"],
    words: Sequence[str],
    regions: Sequence[str],
    *,
    title: str = "",
    subtitle: str = "",
) -> go.Figure:
    """The weights with which words and regions are pooled, each side summing to 1; a dotted line where all
    are alike."""
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.15)
    sides = ((token_pooling, words, TEXT, "h"), (region_pooling, regions, IMAGE, "v"))
    for column, (weights, names, colour, orientation) in enumerate(sides, start=1):
        values = np.asarray(weights, dtype=np.float32)
        if len(values) != len(names):
            raise ValueError(f"{len(values)} pooling weights for {len(names)} words or regions")
        along, level = np.arange(len(names)), np.full(2, 1 / len(names))
        ends = np.array([-0.5, len(names) - 0.5])
        told = [f"{name}: {value:.1%}" for name, value in zip(names, values, strict=True)]
        lying = orientation == "h"
        figure.add_bar(
            x=values if lying else along,
            y=along if lying else values,
            orientation=orientation,
            marker={"color": colour},
            width=0.62,
            hovertext=told,
            hovertemplate="%{hovertext}<extra></extra>",
            name="token pooling" if lying else "region pooling",
            row=1,
            col=column,
        )
        figure.add_scatter(
            x=level if lying else ends,
            y=ends if lying else level,
            mode="lines",
            line={"color": INK, "width": 1, "dash": "dot"},
            hoverinfo="skip",
            name="all alike",
            row=1,
            col=column,
        )
        highest = max(float(values.max()), 1 / len(names))
        if lying or len(names) <= READ_OFF:
            # In line, not at the end of each bar: there the dotted line would run through some of them.
            beyond = np.full(len(names), 1.06 * highest)
            figure.add_scatter(
                x=beyond if lying else along,
                y=along if lying else beyond,
                mode="text",
                text=[f"{value:.0%}" for value in values],
                textposition="middle right" if lying else "top center",
                textfont={"size": 10.5, "color": QUIET},
                hoverinfo="skip",
                cliponaxis=False,
                name="values",
                row=1,
                col=column,
            )
        amount = {"range": [0, 1.06 * highest], "showticklabels": False, "showgrid": False}
        listed = _names(names) | ({"range": [len(names) - 0.5, -0.5]} if lying else {})
        figure.update_xaxes(amount if lying else listed, row=1, col=column)
        figure.update_yaxes(listed if lying else amount, row=1, col=column)
    figure.update_layout(
        template=template(),
        title={"text": title, "subtitle": {"text": subtitle}},
        height=max(ROW * len(words), 120) + 84 + 40,
        showlegend=False,
        dragmode=False,
    )
    return figure


def _names(names: Sequence[str]) -> dict[str, Any]:
    """An axis of places 0, 1, ...: names may repeat, as words in a caption do."""
    short = [name if len(name) <= LONGEST else name[: LONGEST - 1] + "…" for name in names]
    return {
        "tickvals": list(range(len(names))),
        "ticktext": short,
        "tickfont": {"size": 11 if len(names) <= READ_OFF or len(max(short, key=len)) > 2 else 9},
        "range": [-0.5, len(names) - 0.5],
        "showgrid": False,
        "showline": False,
        "tickangle": 0,
    }
