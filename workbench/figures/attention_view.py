"""Combines a picture, the attention in both directions and the pooling weights in one figure."""

from collections.abc import Mapping
from html import escape
from typing import Any

import plotly.graph_objects as go

from workbench.figures.boxes import SIDE
from workbench.figures.style import INK, QUIET, finish, heading

TOP, BOTTOM = 132, 34  # pixels above (title, subtitle, headings) and below the plots
BARS, GAP = 56, 84  # pixels: the bars of regions, and the room above them
# Shares of the figure's width: left edges of the words and of the maps, width of a map, gap, word bars.
WORDS, MAPS, WIDE, BETWEEN, LYING = 0.345, 0.44, 0.19, 0.025, 0.1


def attention_view(
    picture: go.Figure,
    token_to_region: go.Figure,
    region_to_token: go.Figure,
    pooling: go.Figure,
    *,
    title: str,
    subtitle: str = "",
    colours: Mapping[int, str] | None = None,
) -> go.Figure:
    """Combine four figures in one: the picture on the left, then both maps, then the pooling bars.

    The inputs come from `picture_with_boxes`, `attention_heatmap` (plain and turned) and `pooling_bars`. Maps
    and bars share one row per word. Words are left-aligned, and bold in a colour where `colours` has one for
    their number.
    """
    names, words = token_to_region.layout.yaxis.ticktext, len(token_to_region.layout.yaxis.tickvals)
    row = min(60, max(20, 190 // words))
    tall = max(SIDE, row * words + GAP + BARS)
    first, second = MAPS, MAPS + WIDE + BETWEEN
    third = second + WIDE + BETWEEN
    lines = [1 - row * words / tall, 1.0]
    below = [max(0.0, lines[0] - (GAP + BARS) / tall), lines[0] - GAP / tall]
    of_words = [trace for trace in pooling.data if trace.xaxis == "x"]
    of_regions = [trace for trace in pooling.data if trace.xaxis == "x2"]
    parts = (
        (picture.data, "x", "y"),
        (token_to_region.data, "x2", "y2"),
        (region_to_token.data, "x3", "y2"),
        (of_words, "x4", "y2"),
        (of_regions, "x5", "y5"),
    )
    traces = [trace.to_plotly_json() | {"xaxis": x, "yaxis": y} for data, x, y in parts for trace in data]
    height = tall + TOP + BOTTOM
    note = f'<br><span style="color:{QUIET};font-size:11px">'
    return finish(
        go.Figure(traces),
        title,
        subtitle,
        y=1 - 26 / height,
        height=height,
        margin={"l": 10, "r": 10, "t": TOP, "b": BOTTOM},
        showlegend=False,
        dragmode=False,
        hovermode="closest",
        xaxis=_axis(picture.layout.xaxis, domain=[0, 0.335]),
        yaxis=_axis(picture.layout.yaxis, domain=[0, 1]),
        xaxis2=_axis(token_to_region.layout.xaxis, domain=[first, first + WIDE], anchor="y2"),
        # Plotly right-aligns the names of an axis, so they are annotations.
        yaxis2=_axis(token_to_region.layout.yaxis, domain=lines, anchor="x2", showticklabels=False),
        xaxis3=_axis(region_to_token.layout.xaxis, domain=[second, second + WIDE], anchor="y2"),
        xaxis4=_axis(pooling.layout.xaxis, domain=[third, third + LYING], anchor="y2"),
        xaxis5=_axis(pooling.layout.xaxis2, domain=[first, first + WIDE], anchor="y5"),
        yaxis5=_axis(pooling.layout.yaxis2, domain=below, anchor="x5"),
        annotations=[
            *picture.layout.annotations,
            *(_word(name, number, (colours or {}).get(number)) for number, name in enumerate(names)),
            heading(f"words look at regions{note}a row sums to 1</span>", first, 1, 4),
            heading(f"regions look at words{note}a column sums to 1</span>", second, 1, 4),
            heading(f"pooling{note}of words</span>", third, 1, 4),
            heading(f"pooling{note}of regions</span>", first, below[1], 20),
        ],
    )


def _word(name: str, number: int, colour: str | None) -> dict[str, Any]:
    text = escape(name) if colour is None else f"<b>{escape(name)}</b>"
    place = {"xref": "paper", "yref": "y2", "x": WORDS, "y": number, "xanchor": "left", "yanchor": "middle"}
    return place | {"text": text, "showarrow": False, "font": {"size": 11, "color": colour or INK}}


def _axis(axis: Any, **settings: Any) -> dict[str, Any]:
    return dict(axis.to_plotly_json()) | settings
