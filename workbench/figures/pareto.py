"""Plots retrieval against zero-shot accuracy: methods, interpolations of weights and the Pareto front."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go

from workbench.figures.label_layout import free_places
from workbench.figures.style import PAPER, QUIET, finish, intervals, run_colours

WIDE, HIGH = 820.0, 420.0  # pixels; the width is roughly that of a plot in a notebook
NEAR = 16  # pixels; a label farther from its point is connected to it by a line
MARGIN = 0.12  # empty space around the points, as a share of their range

Interval = tuple[float, float, float]  # value, lower and upper end


class ParetoPoint(NamedTuple):
    """A method's recall@1 and its zero-shot accuracy relative to the pretrained start, with intervals.

    `alpha` is the share of the method's weights in an interpolation with its start. The interpolations of one
    method form a path.
    """

    method: str
    zero_shot_kept: Interval
    recall: Interval
    alpha: float | None = None

    @property
    def name(self) -> str:
        """The method, or the interpolation as tables name it."""
        return self.method if self.alpha is None else f"WiSE-FT, {self.alpha:g} of {self.method}"

    @property
    def series(self) -> str:
        """What the points of one path have in common, and no other point."""
        return self.method if self.alpha is None else f"WiSE-FT of {self.method}"


def pareto_figure(
    points: Sequence[ParetoPoint], *, title: str, subtitle: str = "", recall: str = "R@1"
) -> go.Figure:
    """Plot retrieval against the share of zero-shot accuracy that a method keeps, one label per method.

    Both axes are in per cent, values are shares, and better is up and to the right. `recall` is the name of
    the retrieval metric. The points of an interpolation are connected in the order of alpha. A dotted line
    connects the Pareto-optimal points. Raises ValueError if there are no points.
    """
    if not points:
        raise ValueError("pareto_figure: no points; give at least one")
    values = 100 * np.array([[point.zero_shot_kept, point.recall] for point in points], dtype=np.float64)
    middle, low, high = values[..., 0], values[..., 1], values[..., 2]
    colours = run_colours(dict.fromkeys(point.series for point in points))
    best = middle[best_in_both(middle)]
    figure = go.Figure()
    line = {"color": QUIET, "width": 1.5, "dash": "dot"}
    name = "Pareto front"
    figure.add_scatter(x=best[:, 0], y=best[:, 1], mode="lines", line=line, name=name, hoverinfo="skip")
    for series, colour in colours.items():
        path = _path(points, series)
        rows = path or [row for row, point in enumerate(points) if point.series == series]
        figure.add_scatter(
            x=middle[rows, 0],
            y=middle[rows, 1],
            error_x=intervals(middle[rows, 0], low[rows, 0], high[rows, 0], colour, 1.2),
            error_y=intervals(middle[rows, 1], low[rows, 1], high[rows, 1], colour, 1.2),
            mode="lines+markers" if path else "markers",
            line={"color": colour, "width": 2},
            marker={
                "size": 7 if len(path) > 1 else 11,
                "color": colour,
                "line": {"color": PAPER, "width": 1},
            },
            text=[points[row].name for row in rows],
            hovertemplate="%{text}<br>zero-shot kept %{x:.1f} %, " + recall + " %{y:.1f}<extra></extra>",
            name=series,
        )
    ranges = [_range(low[:, axis], high[:, axis]) for axis in (0, 1)]
    figure.update_xaxes(title_text="zero-shot kept, per cent of the start's accuracy", range=ranges[0])
    figure.update_yaxes(title_text=f"retrieval {recall}, points", range=ranges[1])
    annotations = _point_labels(points, middle, low, high, ranges, colours)
    return finish(
        figure, title, subtitle, height=HIGH + 84 + 60, margin={"t": 84, "b": 60, "l": 64},
        showlegend=False, hovermode="closest", annotations=annotations,
    )  # fmt: skip


def best_in_both(values: np.ndarray) -> np.ndarray:
    """The Pareto-optimal rows of `values` [n, 2], sorted by the first column.

    No other row is at least as good as these in both columns and better in one.
    """
    at_least = (values[None] >= values[:, None]).all(2)
    better = (values[None] > values[:, None]).any(2)
    kept = np.flatnonzero(~np.any(at_least & better, axis=1))
    return kept[np.lexsort((-values[kept, 1], values[kept, 0]))]


def _range(low: np.ndarray, high: np.ndarray) -> list[float]:
    least, most = float(low.min()), float(high.max())
    room = MARGIN * (most - least) or 1.0
    return [least - room, most + room]


def _point_labels(
    points: Sequence[ParetoPoint],
    middle: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    ranges: list[list[float]],
    colours: Mapping[str, str],
) -> list[dict[str, object]]:
    """Labels beside the points. A path has its name at its middle and the values of alpha along it."""
    (left, right), (bottom, top) = ranges
    scale = np.array([WIDE / (right - left), HIGH / (top - bottom)])
    flat, flat_low, flat_high = ((part - [left, bottom]) * scale for part in (middle, low, high))
    dots = np.concatenate([flat - 6, flat + 6], axis=1)
    # Intervals and paths are thin, but a label across one is hard to read.
    level = np.stack([flat_low[:, 0], flat[:, 1] - 2, flat_high[:, 0], flat[:, 1] + 2], axis=1)
    upright = np.stack([flat[:, 0] - 2, flat_low[:, 1], flat[:, 0] + 2, flat_high[:, 1]], axis=1)
    steps = [
        flat[a] + share * (flat[b] - flat[a])
        for series in colours
        for a, b in pairwise(_path(points, series))
        for share in np.linspace(0, 1, 25)
    ]
    path = np.array([[*(step - 4), *(step + 4)] for step in steps]).reshape(-1, 4)
    names = [_label(points, row) for row in range(len(points))]
    candidates = np.array(
        [_beside(point, 7.0 * len(name) + 6) for point, name in zip(flat, names, strict=True)]
    )
    chosen = free_places(candidates, np.concatenate([dots, level, upright, path]), (WIDE, HIGH))
    away = (chosen[:, :2] + chosen[:, 2:]) / 2 - flat
    # The distance from a point to the nearest edge of its label.
    gaps = np.linalg.norm(np.clip(flat, chosen[:, :2], chosen[:, 2:]) - flat, axis=1)
    labels = []
    for point, name, gap, (x, y), (across, up) in zip(points, names, gaps, middle, away, strict=True):
        colour = colours[point.series]
        # The arrow is visible only if the label is far from its point.
        arrow: dict[str, object] = {"showarrow": True, "arrowhead": 0, "arrowwidth": 1, "standoff": 7}
        arrow["arrowcolor"] = colour if gap > NEAR else "rgba(0,0,0,0)"
        # In a crowd a label may lie on an interval, which must not strike its text through.
        arrow |= {"bgcolor": "rgba(255,255,255,0.85)", "borderpad": 0}
        font = {"size": 12 if point.alpha is None else 10.5, "color": colour, "weight": 600}
        labels.append(arrow | {"text": name, "x": x, "y": y, "ax": across, "ay": -up, "font": font})
    return labels


def _path(points: Sequence[ParetoPoint], series: str) -> list[int]:
    """The rows of an interpolation, sorted by alpha."""
    rows = [row for row, point in enumerate(points) if point.series == series and point.alpha is not None]
    return sorted(rows, key=lambda row: points[row].alpha or 0.0)


def _label(points: Sequence[ParetoPoint], row: int) -> str:
    point = points[row]
    path = _path(points, point.series)
    is_named = not path or row == path[len(path) // 2]
    return point.name if is_named else f"{point.alpha:g}"


def _beside(point: np.ndarray, width: float) -> list[tuple[float, float, float, float]]:
    """Candidate rectangles of a label beside a point, to its right first, then farther away."""
    x, y = point
    high, corners = 16, []
    for away in (10, 26, 44, 64, 96, 136, 184):
        corners += [(x + away, y - high / 2), (x - away - width, y - high / 2)]
        corners += [(x + away, y + away / 2), (x - away - width, y + away / 2)]
        corners += [(x + away, y - away / 2 - high), (x - away - width, y - away / 2 - high)]
        corners += [(x - width / 2, y + away), (x - width / 2, y - away - high)]
    return [(left, bottom, left + width, bottom + high) for left, bottom in corners]
