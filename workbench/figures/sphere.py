"""Animates how losses move a student's embeddings on the unit sphere, next to the fixed ones of a teacher."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from workbench.figures.style import GRID, INK, PALETTE, QUIET, finish

PANEL, TOP, BOTTOM = 235, 110, 120  # pixels: the side of a panel, the space above and below all panels
GAP = 46  # pixels between two rows, for the headings of the lower one
SYMBOLS = {"image": "circle", "text": "square"}


class Descent(NamedTuple):
    """A student's unit embeddings of pictures and captions, and its loss, at every frame."""

    image: Float[np.ndarray, "frames n 3"]
    text: Float[np.ndarray, "frames n 3"]
    values: Float[np.ndarray, " frames"]


def sphere_figure(
    descents: Mapping[str, Descent],
    teacher_image: Float[np.ndarray, "n 3"],
    teacher_text: Float[np.ndarray, "n 3"],
    *,
    title: str,
    columns: int = 4,
) -> go.Figure:
    """Draw one panel per entry of `descents`. A slider and a play button move all panels together.

    Every pair has a colour. Circles are pictures and squares are captions. Open markers are the teacher's,
    filled ones the student's, and thin lines show the student's paths. Points on the far side of the sphere
    are pale. Raises ValueError unless all descents have the same number of frames.
    """
    lengths = {len(descent.values) for descent in descents.values()}
    if len(lengths) != 1:
        raise ValueError(f"descents of {sorted(lengths)} frames: all need the same number of frames")
    (frames,) = lengths
    columns = min(columns, len(descents))
    rows = -(-len(descents) // columns)
    plots = rows * PANEL + (rows - 1) * GAP
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[f"<b>{name}</b>" for name in descents],
        horizontal_spacing=0.02,
        vertical_spacing=GAP / plots if rows > 1 else 0,
    )
    fixed = _points(teacher_image, teacher_text, "-open")
    moving = []
    for number, (name, descent) in enumerate(descents.items()):
        panel: dict[str, Any] = {"row": number // columns + 1, "col": number % columns + 1}
        figure.add_trace(_outline(), **panel)
        figure.add_trace(_paths(descent), **panel)
        figure.add_trace(go.Scatter(**fixed, name="teacher", showlegend=False), **panel)
        moving.append(len(figure.data))
        figure.add_trace(go.Scatter(**_state(descent, 0), name=name, showlegend=False), **panel)
        axis = figure.get_subplot(**panel).xaxis.plotly_name.replace("xaxis", "x")
        figure.update_yaxes(scaleanchor=axis, **panel)
    for style, owner in (("", "student"), ("-open", "teacher")):
        for label, symbol in (("picture", "circle"), ("caption", "square")):
            marker = {"symbol": symbol + style, "color": QUIET, "size": 9}
            name = f"{label}, {owner}"
            figure.add_scatter(x=[None], y=[None], mode="markers", marker=marker, name=name, row=1, col=1)
    for frame in range(frames):
        students = [go.Scatter(**_state(descent, frame)) for descent in descents.values()]
        figure.frames += (go.Frame(name=str(frame), data=students, traces=moving),)
    height = plots + TOP + BOTTOM
    figure.update_xaxes(visible=False, range=[-1.25, 1.25])
    figure.update_yaxes(visible=False, range=[-1.3, 1.2])
    figure.update_annotations(font_size=12.5)
    return finish(
        figure,
        title,
        y=1 - 24 / height,
        height=height,
        margin={"t": TOP, "b": BOTTOM, "l": 8, "r": 8},
        legend={"y": 1 + 34 / plots, "yanchor": "bottom"},
        sliders=[_slider(frames, plots)],
        updatemenus=[_play(plots)],
    )


def _points(image: np.ndarray, text: np.ndarray, style: str = "") -> dict[str, Any]:
    """Markers of pictures and captions, pale if they are on the far side of the sphere."""
    both = np.concatenate([image, text])
    symbols = [f"{symbol}{style}" for symbol in SYMBOLS.values() for _ in image]
    colours = [PALETTE[pair % len(PALETTE)] for _ in SYMBOLS for pair in range(len(image))]
    marker = {
        "symbol": symbols,
        "color": colours,
        "size": 11 if style else 9,
        "opacity": np.where(both[:, 2] >= 0, 1.0, 0.35).tolist(),
        "line": {"width": 1.6, "color": colours},
    }
    x, y = both[:, 0].astype(np.float32), both[:, 1].astype(np.float32)
    return {"x": x, "y": y, "mode": "markers", "marker": marker, "hoverinfo": "skip"}


def _state(descent: Descent, frame: int) -> dict[str, Any]:
    """The student's markers at one frame, with its loss as text below the sphere."""
    points = _points(descent.image[frame], descent.text[frame])
    words = ["" for _ in points["x"]] + [f"loss {descent.values[frame]:.3g}"]
    points["x"], points["y"] = np.append(points["x"], 0), np.append(points["y"], -1.18)
    marker = points["marker"]
    marker["opacity"] = [*marker["opacity"], 0]
    marker["color"] = [*marker["color"], INK]
    marker["symbol"] = [*marker["symbol"], "circle"]
    marker["line"] = {"width": 0}
    return points | {"mode": "markers+text", "text": words, "textfont": {"size": 11, "color": QUIET}}


def _paths(descent: Descent) -> go.Scatter:
    """The complete paths of all points as thin lines."""
    paths = np.concatenate([descent.image, descent.text], axis=1)[..., :2].astype(np.float32)
    gap = np.full((1, paths.shape[1], 2), np.nan, dtype=np.float32)
    x, y = np.concatenate([paths, gap]).transpose(2, 1, 0).reshape(2, -1)
    line = {"color": "#c3cad1", "width": 1}
    return go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _outline() -> go.Scatter:
    angle = np.linspace(0, 2 * np.pi, 73)
    x, y = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    line, fill = {"color": GRID, "width": 1.5}, {"fill": "toself", "fillcolor": "#fafbfc"}
    return go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False, **fill)


def _slider(frames: int, plots: int) -> dict[str, Any]:
    jump = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}, "transition": {"duration": 0}}
    steps = [
        {"label": str(frame), "method": "animate", "args": [[str(frame)], jump]} for frame in range(frames)
    ]
    position = {"x": 0.12, "len": 0.86, "y": -18 / plots, "pad": {"t": 8}}
    return position | {"steps": steps, "currentvalue": {"prefix": "frame ", "font": {"size": 12}}}


def _play(plots: int) -> dict[str, Any]:
    speed = {"frame": {"duration": 80, "redraw": False}, "transition": {"duration": 60}, "fromcurrent": True}
    button = {"label": "play", "method": "animate", "args": [None, speed]}
    position = {"x": 0, "xanchor": "left", "y": -44 / plots, "yanchor": "top"}
    return position | {"type": "buttons", "buttons": [button], "showactive": False}
