"""Attention between a picture's regions and a caption's words: heat maps, and the weights of pooling."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from workbench.figures.style import IMAGE, INK, QUIET, TEXT, finish

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
) -> go.Figure:
    """What each query looks at: words at regions, or regions at words; every row sums to 1.

    The darkest colour is `most`, by default the largest value. A frame marks the query `chosen`. `turned`
    draws queries from left to right and keys from top to bottom, in the colour of text: so token-to-region
    and, turned, region-to-token stand side by side with the same axes.
    """
    if attention.shape != (len(queries), len(keys)):
        raise ValueError(f"attention {attention.shape} of {len(queries)} queries and {len(keys)} keys")
    rows, columns = (keys, queries) if turned else (queries, keys)
    text = np.array(
        [
            [f"{query} → {key}: {value:.1%}" for key, value in zip(keys, row, strict=True)]
            for query, row in zip(queries, attention, strict=True)
        ]
    )
    heatmap = go.Heatmap(
        z=np.asarray(attention.T if turned else attention, dtype=np.float32),
        zmin=0,
        zmax=most or float(attention.max()),
        colorscale=WORDS if turned else REGIONS,
        showscale=False,
        xgap=1,
        ygap=1,
        texttemplate="%{z:.0%}" if len(columns) <= READ_OFF else None,
        textfont={"size": 10.5},
        text=(text.T if turned else text).tolist(),
        hovertemplate="%{text}<extra></extra>",
        name="region to token" if turned else "token to region",
    )
    figure = go.Figure(heatmap)
    if chosen is not None:
        short = [chosen - 0.5, chosen + 0.5, chosen + 0.5, chosen - 0.5, chosen - 0.5]
        long = [-0.5, -0.5, len(keys) - 0.5, len(keys) - 0.5, -0.5]
        frame = _turned(short, long, not turned)
        line = {"color": INK, "width": 2.5}
        figure.add_scatter(
            **frame, mode="lines", line=line, hoverinfo="skip", cliponaxis=False, name="chosen"
        )
    return finish(
        figure, height=ROW * len(rows) + 84 + 40, showlegend=False, dragmode=False, hovermode="closest",
        xaxis=_names(columns), yaxis=_names(rows) | {"range": [len(rows) - 0.5, -0.5]},
    )  # fmt: skip


def pooling_bars(
    token_pooling: Float[np.ndarray, " s"],
    region_pooling: Float[np.ndarray, " r"],
    words: Sequence[str],
    regions: Sequence[str],
) -> go.Figure:
    """The weights with which words and regions are pooled, each side summing to 1; a dotted line where all
    are alike."""
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.15)
    sides = ((token_pooling, words, TEXT, True), (region_pooling, regions, IMAGE, False))
    for column, (weights, names, colour, lying) in enumerate(sides, start=1):
        values = np.asarray(weights, dtype=np.float32)
        if len(values) != len(names):
            raise ValueError(f"{len(values)} pooling weights for {len(names)} words or regions")
        places, alike = np.arange(len(names)), 1 / len(names)
        highest = max(float(values.max()), alike)
        panel: dict[str, Any] = {"row": 1, "col": column}
        figure.add_bar(
            **_turned(places, values, lying),
            orientation="h" if lying else "v",
            marker={"color": colour},
            width=0.62,
            hovertext=[f"{name}: {value:.1%}" for name, value in zip(names, values, strict=True)],
            hovertemplate="%{hovertext}<extra></extra>",
            name="token pooling" if lying else "region pooling",
            **panel,
        )
        level = _turned(np.array([-0.5, len(names) - 0.5]), np.full(2, alike), lying)
        line = {"color": INK, "width": 1, "dash": "dot"}
        figure.add_scatter(**level, mode="lines", line=line, hoverinfo="skip", name="all alike", **panel)
        if lying or len(names) <= READ_OFF:
            # In line, not at the end of each bar: there the dotted line would run through some of them.
            figure.add_scatter(
                **_turned(places, np.full(len(names), 1.06 * highest), lying),
                mode="text",
                text=[f"{value:.0%}" for value in values],
                textposition="middle right" if lying else "top center",
                textfont={"size": 10.5, "color": QUIET},
                hoverinfo="skip",
                cliponaxis=False,
                name="values",
                **panel,
            )
        amount = {"range": [0, 1.06 * highest], "showticklabels": False, "showgrid": False}
        listed = _names(names) | ({"range": [len(names) - 0.5, -0.5]} if lying else {})
        figure.update_xaxes(amount if lying else listed, **panel)
        figure.update_yaxes(listed if lying else amount, **panel)
    height = max(ROW * len(words), 120) + 84 + 40
    return finish(figure, height=height, showlegend=False, dragmode=False)


def _turned(along: Any, amount: Any, lying: bool) -> dict[str, Any]:
    """Coordinates of what stands along the horizontal axis or, `lying`, the vertical one."""
    return {"x": amount, "y": along} if lying else {"x": along, "y": amount}


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
