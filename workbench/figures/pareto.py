"""What retrieval costs in zero-shot: methods as points, interpolations as paths, and the front."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from workbench.figures.label_layout import free_places
from workbench.figures.style import PAPER, QUIET, run_colours, template

WIDE, HIGH = 820.0, 420.0  # pixels of the plot: as high as it is drawn, about as wide as in a notebook
NEAR = 16  # pixels from a point to its name that need no thread between them
MARGIN = 0.12  # of the values' range, left free around them

Interval = tuple[float, float, float]  # value, lower and upper end


class FrontPoint(NamedTuple):
    """A method's zero-shot accuracy as a share of the start's, and its recall@1, both with intervals.

    Points of one method with `alpha`, the share of the trained weights in an interpolation, form a path.
    """

    method: str
    zero_shot_kept: Interval
    recall: Interval
    alpha: float | None = None


def front(points: Sequence[FrontPoint], *, title: str, subtitle: str = "", recall: str = "R@1") -> go.Figure:
    """Zero-shot kept (per cent) against retrieval (points), one labelled point a method.

    Up and right is better. Values come as shares; `recall` names the vertical axis. The points of an
    interpolation are joined in the order of alpha and the path is named once. A dotted line joins the points
    that no other one beats in both. Raises ValueError where there is no point.
    """
    if not points:
        raise ValueError("a front of no points; give one or more")
    values = 100 * np.array([[point.zero_shot_kept, point.recall] for point in points], dtype=np.float64)
    middle, low, high = values[..., 0], values[..., 1], values[..., 2]
    colours = run_colours(dict.fromkeys(point.method for point in points))
    best = middle[best_in_both(middle)]
    figure = go.Figure()
    figure.add_scatter(
        x=best[:, 0],
        y=best[:, 1],
        mode="lines",
        line={"color": QUIET, "width": 1.5, "dash": "dot"},
        name="beaten by none",
        hoverinfo="skip",
    )
    for method, colour in colours.items():
        path = _path(points, method)
        rows = path or [row for row, point in enumerate(points) if point.method == method]
        told = [f"{method}, alpha {points[row].alpha:g}" if path else method for row in rows]
        figure.add_scatter(
            x=middle[rows, 0],
            y=middle[rows, 1],
            error_x=_bars(middle[rows, 0], low[rows, 0], high[rows, 0], colour),
            error_y=_bars(middle[rows, 1], low[rows, 1], high[rows, 1], colour),
            mode="lines+markers" if path else "markers",
            line={"color": colour, "width": 2},
            marker={"size": 7 if path else 11, "color": colour, "line": {"color": PAPER, "width": 1}},
            text=told,
            hovertemplate="%{text}<br>zero-shot kept %{x:.1f} %, " + recall + " %{y:.1f}<extra></extra>",
            name=method,
        )
    ranges = [_range(low[:, axis], high[:, axis]) for axis in (0, 1)]
    figure.update_layout(
        template=template(),
        title={"text": title, "subtitle": {"text": subtitle}},
        height=HIGH + 84 + 60,
        margin={"t": 84, "b": 60, "l": 64},
        showlegend=False,
        hovermode="closest",
        annotations=_point_labels(points, middle, low, high, ranges, colours),
    )
    figure.update_xaxes(title_text="zero-shot kept, per cent of the start's accuracy", range=ranges[0])
    figure.update_yaxes(title_text=f"retrieval {recall}, points", range=ranges[1])
    return figure


def best_in_both(values: np.ndarray) -> np.ndarray:
    """The rows of `values` [n, 2] that no other row beats: at least as good in both, better in one; by the
    first column."""
    at_least = (values[None] >= values[:, None]).all(2)
    better = (values[None] > values[:, None]).any(2)
    kept = np.flatnonzero(~np.any(at_least & better, axis=1))
    return kept[np.lexsort((-values[kept, 1], values[kept, 0]))]


def _bars(middle: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": high - middle,
        "arrayminus": middle - low,
        "thickness": 1.2,
        "width": 0,
        "color": colour,
    }


def _range(low: np.ndarray, high: np.ndarray) -> list[float]:
    least, most = float(low.min()), float(high.max())
    room = MARGIN * (most - least) or 1.0
    return [least - room, most + room]


def _point_labels(
    points: Sequence[FrontPoint],
    middle: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    ranges: list[list[float]],
    colours: Mapping[str, str],
) -> list[dict[str, object]]:
    """Names beside the points, the name of a path at its middle, numbers of alpha along it."""
    (left, right), (bottom, top) = ranges
    scale = np.array([WIDE / (right - left), HIGH / (top - bottom)])
    flat, flat_low, flat_high = ((part - [left, bottom]) * scale for part in (middle, low, high))
    dots = np.concatenate([flat - 6, flat + 6], axis=1)
    # Intervals and paths are thin, but a name across one is hard to read.
    level = np.stack([flat_low[:, 0], flat[:, 1] - 2, flat_high[:, 0], flat[:, 1] + 2], axis=1)
    upright = np.stack([flat[:, 0] - 2, flat_low[:, 1], flat[:, 0] + 2, flat_high[:, 1]], axis=1)
    steps = [
        flat[a] + share * (flat[b] - flat[a])
        for method in colours
        for a, b in pairwise(_path(points, method))
        for share in np.linspace(0, 1, 25)
    ]
    path = np.array([[*(step - 4), *(step + 4)] for step in steps]).reshape(-1, 4)
    names = [_label(points, row) for row in range(len(points))]
    places = np.array([_beside(place, 7.0 * len(name) + 6) for place, name in zip(flat, names, strict=True)])
    found = free_places(places, np.concatenate([dots, level, upright, path]), (WIDE, HIGH))
    away = (found[:, :2] + found[:, 2:]) / 2 - flat
    # From a point to its name's nearest edge.
    gaps = np.linalg.norm(np.clip(flat, found[:, :2], found[:, 2:]) - flat, axis=1)
    return [
        {
            "text": name,
            "x": x,
            "y": y,
            "ax": across,
            "ay": -up,
            # A thread where a name had to go far from its point.
            "showarrow": True,
            "arrowhead": 0,
            "arrowwidth": 1,
            "arrowcolor": colours[points[row].method] if gap > NEAR else "rgba(0,0,0,0)",
            "standoff": 7,
            "font": {
                "size": 12 if points[row].alpha is None else 10.5,
                "color": colours[points[row].method],
                "weight": 600,
            },
        }
        for row, (name, gap, (x, y), (across, up)) in enumerate(zip(names, gaps, middle, away, strict=True))
    ]


def _path(points: Sequence[FrontPoint], method: str) -> list[int]:
    """The points of an interpolation in the order of alpha."""
    rows = [row for row, point in enumerate(points) if point.method == method and point.alpha is not None]
    return sorted(rows, key=lambda row: points[row].alpha or 0.0)


def _label(points: Sequence[FrontPoint], row: int) -> str:
    point = points[row]
    if point.alpha is None:
        return point.method
    path = _path(points, point.method)
    return f"{point.method} {point.alpha:g}" if row == path[len(path) // 2] else f"{point.alpha:g}"


def _beside(place: np.ndarray, width: float) -> list[tuple[float, float, float, float]]:
    """Places of a label beside a point, right of it first, then farther and farther away."""
    x, y = place
    high, found = 16, []
    for away in (10, 26, 44, 64):
        found += [(x + away, y - high / 2), (x - away - width, y - high / 2)]
        found += [(x + away, y + away / 2), (x - away - width, y + away / 2)]
        found += [(x + away, y - away / 2 - high), (x - away - width, y - away / 2 - high)]
        found += [(x - width / 2, y + away), (x - width / 2, y - away - high)]
    return [(left, bottom, left + width, bottom + high) for left, bottom in found]
