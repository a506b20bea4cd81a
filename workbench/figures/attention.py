"""Attention between a picture's regions and a caption's words: heat maps and pooling weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from workbench.figures.style import IMAGE, INK, QUIET, TEXT, finish

READ_OFF = 8  # the most columns at which a heat map has room for numbers in its cells
DIGITS = 16  # that an axis has room for; where the numbers of all regions have more, only some are named
SPLIT = 40  # the most columns with gaps between them; more would leave nothing of the cells
ROW = 26  # pixels, the height of one word
LONGEST = 15  # characters of a word on an axis; the hover text shows all of it
REGIONS, WORDS = [[0, "#ffffff"], [0.6, IMAGE], [1, "#00564d"]], [[0, "#ffffff"], [0.6, TEXT], [1, "#4a0f2c"]]


def attention_heatmap(
    attention: Float[np.ndarray, "queries keys"],
    queries: Sequence[str],
    keys: Sequence[str],
    *,
    chosen: Sequence[int] = (),
    most: float | None = None,
    turned: bool = False,
) -> go.Figure:
    """Draw attention as a heat map. Queries are words and keys are regions, or the other way round.

    Every row of `attention` sums to 1. The darkest colour stands for `most`, by default the largest value.
    Frames mark the queries `chosen`. With `turned`, queries run from left to right, keys from top to bottom,
    and the map has the colour of text. A token-to-region map and a turned region-to-token map therefore share
    their axes when they are side by side. Raises ValueError if the shape does not match the names.
    """
    if attention.shape != (len(queries), len(keys)):
        raise ValueError(
            f"attention has shape {attention.shape}, expected [{len(queries)} queries, {len(keys)} keys]"
        )
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
        xgap=1 if len(columns) <= SPLIT else 0,
        ygap=1,
        texttemplate="%{z:.0%}" if len(columns) <= READ_OFF else None,
        textfont={"size": 10.5},
        text=(text.T if turned else text).tolist(),
        hovertemplate="%{text}<extra></extra>",
        name="region to token" if turned else "token to region",
    )
    figure = go.Figure(heatmap)
    for query in chosen:
        short = [query - 0.5, query + 0.5, query + 0.5, query - 0.5, query - 0.5]
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
    """Draw the pooling weights of words and of regions as bars.

    The weights of each side sum to 1. A dotted line marks uniform weights. Raises ValueError if a side has
    fewer or more weights than names.
    """
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.15)
    sides = ((token_pooling, words, TEXT, True), (region_pooling, regions, IMAGE, False))
    for column, (weights, names, colour, horizontal) in enumerate(sides, start=1):
        values = np.asarray(weights, dtype=np.float32)
        if len(values) != len(names):
            raise ValueError(f"{len(values)} pooling weights for {len(names)} words or regions")
        positions, uniform = np.arange(len(names)), 1 / len(names)
        highest = max(float(values.max()), uniform)
        panel: dict[str, Any] = {"row": 1, "col": column}
        figure.add_bar(
            **_turned(positions, values, horizontal),
            orientation="h" if horizontal else "v",
            marker={"color": colour},
            width=0.62,
            hovertext=[f"{name}: {value:.1%}" for name, value in zip(names, values, strict=True)],
            hovertemplate="%{hovertext}<extra></extra>",
            name="token pooling" if horizontal else "region pooling",
            **panel,
        )
        level = _turned(np.array([-0.5, len(names) - 0.5]), np.full(2, uniform), horizontal)
        line = {"color": QUIET, "width": 1, "dash": "dot"}
        figure.add_scatter(**level, mode="lines", line=line, hoverinfo="skip", name="uniform", **panel)
        if horizontal or len(names) <= READ_OFF:
            # Aligned rather than at the end of each bar, where the dotted line would cross some of them.
            figure.add_scatter(
                **_turned(positions, np.full(len(names), 1.06 * highest), horizontal),
                mode="text",
                text=[f"{value:.0%}" for value in values],
                textposition="middle right" if horizontal else "top center",
                textfont={"size": 10.5, "color": QUIET},
                hoverinfo="skip",
                cliponaxis=False,
                name="values",
                **panel,
            )
        weight_axis = {"range": [0, 1.06 * highest], "showticklabels": False, "showgrid": False}
        name_axis = _names(names) | ({"range": [len(names) - 0.5, -0.5]} if horizontal else {})
        figure.update_xaxes(weight_axis if horizontal else name_axis, **panel)
        figure.update_yaxes(name_axis if horizontal else weight_axis, **panel)
    height = max(ROW * len(words), 120) + 84 + 40
    return finish(figure, height=height, showlegend=False, dragmode=False)


def _turned(positions: Any, values: Any, horizontal: bool) -> dict[str, Any]:
    """The coordinates of bars: positions along x, or along y for horizontal bars."""
    return {"x": values, "y": positions} if horizontal else {"x": positions, "y": values}


def _names(names: Sequence[str]) -> dict[str, Any]:
    """An axis with ticks at 0, 1, ...; names may repeat, as words of a caption do."""
    short = [name if len(name) <= LONGEST else name[: LONGEST - 1] + "…" for name in names]
    digits = sum(map(len, names)) if all(map(str.isdigit, names)) else 0  # all words are named
    every = max(1, -(-digits // DIGITS))
    return {
        "tickvals": list(range(len(names)))[::every],
        "ticktext": short[::every],
        "tickfont": {"size": 11 if len(names) <= READ_OFF or len(max(short, key=len)) > 2 else 9},
        "range": [-0.5, len(names) - 0.5],
        "showgrid": False,
        "showline": False,
        "tickangle": 0,
    }
