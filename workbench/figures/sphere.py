"""Animates how losses move a student's embeddings on the unit sphere, next to the fixed ones of a teacher."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from workbench.figures.style import INK, PALETTE, QUIET, finish

HEIGHT = 600  # pixels
SYMBOLS = {"picture": "circle", "caption": "square"}
SCENES = {"scene": (0.0, 0.495), "scene2": (0.505, 1.0)}  # the horizontal place of each sphere
TRACES = 3  # of a loss on a sphere: paths, markers, value
CAMERA = {"eye": {"x": 0.9, "y": 0.9, "z": 0.55}}
AXES = dict(zip(SCENES, ("x", "x2"), strict=True))  # of the losses, in a row below the spheres
BELOW = 0.06  # the share of the height that this row has


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
) -> go.Figure:
    """Draw two spheres that can be rotated, each with a menu of `descents`: at first the first and the last.

    Every pair has a colour. Circles are pictures and squares are captions, open ones the teacher's and filled
    ones the student's. A slider and a play button move both spheres, and the student's paths grow as its
    embeddings move. Raises ValueError unless all descents have the same number of frames.
    """
    lengths = {len(descent.values) for descent in descents.values()}
    if len(lengths) != 1:
        raise ValueError(f"descents of {sorted(lengths)} frames: all need the same number of frames")
    (frames,) = lengths
    names = list(descents)
    chosen = dict(zip(SCENES, (names[0], names[-1]), strict=True))
    figure = go.Figure()
    moving: dict[str, list[int]] = {scene: [] for scene in SCENES}
    for scene in SCENES:
        figure.add_traces([_surface(scene), _circles(scene), _teacher(teacher_image, teacher_text, scene)])
        for name in names:
            moving[scene] += range(len(figure.data), len(figure.data) + TRACES)
            path, markers, value = _state(descents[name], 0)
            for trace in (
                path.update(scene=scene),
                markers.update(scene=scene),
                value.update(xaxis=AXES[scene]),
            ):
                figure.add_trace(trace.update(name=name, visible=name == chosen[scene]))
    for owner, style in {"student": "", "teacher": "-open"}.items():
        for label, symbol in SYMBOLS.items():
            marker = {"symbol": symbol + style, "color": QUIET, "size": 6}
            nowhere: dict[str, Any] = {axis: [None] for axis in "xyz"}
            figure.add_scatter3d(**nowhere, mode="markers", marker=marker, name=f"{label}, {owner}")
    every = [index for indices in moving.values() for index in indices]
    for frame in range(frames):
        states = [trace for descent in descents.values() for trace in _state(descent, frame)]
        figure.frames += (go.Frame(name=str(frame), data=states * len(SCENES), traces=every),)
    axis = {"visible": False, "range": [-1.2, 1.2]}
    space = {"xaxis": axis, "yaxis": axis, "zaxis": axis, "aspectmode": "cube", "camera": CAMERA}
    for scene, (left, right) in SCENES.items():
        domain = {"x": [left, right], "y": [BELOW, 0.95]}
        figure.layout[scene] = space | {"domain": domain, "uirevision": "turned", "dragmode": "orbit"}
        row = {"domain": [left, right], "range": [-1, 1], "visible": False, "fixedrange": True}
        figure.layout[AXES[scene].replace("x", "xaxis")] = row
    menus = [_menu(names, chosen[scene], moving[scene], left) for scene, (left, _) in SCENES.items()]
    return finish(
        figure,
        title,
        "drag a sphere to turn it; choose a loss for each",
        height=HEIGHT,
        margin={"t": 100, "b": 120, "l": 8, "r": 8},
        legend={"y": -0.02, "yanchor": "top"},
        yaxis={"domain": [0, BELOW], "range": [-1, 1], "visible": False, "fixedrange": True},
        sliders=[_slider(frames)],
        updatemenus=[*menus, _play()],
    )


def _state(descent: Descent, frame: int) -> tuple[go.Scatter3d, go.Scatter3d, go.Scatter]:
    """The student's paths up to a frame, its markers there, and the loss as text."""
    points = np.concatenate([descent.image, descent.text], axis=1)[: frame + 1]
    gap = np.full((1, *points.shape[1:]), np.nan)
    x, y, z = np.concatenate([points, gap]).transpose(2, 1, 0).reshape(3, -1).astype(np.float32)
    line = {"color": "#8b97a3", "width": 3}
    path = go.Scatter3d(x=x, y=y, z=z, mode="lines", line=line, hoverinfo="skip", showlegend=False)
    x, y, z = points[-1].T.astype(np.float32)
    colours, symbols = _looks(descent.image.shape[1])
    marker = {"symbol": symbols, "color": colours, "size": 7}
    shown = {"mode": "markers", "marker": marker, "hoverinfo": "skip", "showlegend": False}
    # Text in a scene of WebGL changes its size with every frame, and the sphere can cover it.
    words = {"text": [f"loss {descent.values[frame]:.3g}"], "textfont": {"size": 12, "color": INK}}
    value = go.Scatter(x=[0], y=[0], mode="text", hoverinfo="skip", showlegend=False, **words)
    return path, go.Scatter3d(x=x, y=y, z=z, **shown), value


def _teacher(image: np.ndarray, text: np.ndarray, scene: str) -> go.Scatter3d:
    colours, symbols = _looks(len(image))
    x, y, z = np.concatenate([image, text]).T.astype(np.float32)
    marker = {"symbol": [f"{symbol}-open" for symbol in symbols], "color": colours, "size": 8}
    shown = {"mode": "markers", "marker": marker, "hoverinfo": "skip", "showlegend": False}
    return go.Scatter3d(x=x, y=y, z=z, name="teacher", scene=scene, **shown)


def _looks(pairs: int) -> tuple[list[str], list[str]]:
    """Colours and symbols of all pictures, then of all captions."""
    colours = [PALETTE[pair % len(PALETTE)] for pair in range(pairs)]
    return colours * len(SYMBOLS), [symbol for symbol in SYMBOLS.values() for _ in range(pairs)]


def _surface(scene: str) -> go.Surface:
    """A pale sphere, slightly smaller, so that what lies behind it is dimmed."""
    around, down = np.meshgrid(np.linspace(0, 2 * np.pi, 33), np.linspace(0, np.pi, 17))
    x, y, z = np.sin(down) * np.cos(around), np.sin(down) * np.sin(around), np.cos(down)
    x, y, z = (0.98 * np.stack([x, y, z])).astype(np.float32)
    grey = [[0, "#dfe4ea"], [1, "#dfe4ea"]]
    light = {"ambient": 0.85, "diffuse": 0.25, "specular": 0}
    look = {"colorscale": grey, "opacity": 0.55, "showscale": False, "lighting": light, "hoverinfo": "skip"}
    return go.Surface(x=x, y=y, z=z, scene=scene, **look)


def _circles(scene: str) -> go.Scatter3d:
    """The equator and two meridians."""
    angle = np.append(np.linspace(0, 2 * np.pi, 49), np.nan)
    one, other, none = np.cos(angle), np.sin(angle), np.where(np.isnan(angle), np.nan, 0)
    circles = [(one, other, none), (one, none, other), (none, one, other)]
    x, y, z = np.concatenate([np.stack(circle) for circle in circles], axis=1).astype(np.float32)
    line = {"color": "#b8c0c8", "width": 1.5}
    return go.Scatter3d(
        x=x, y=y, z=z, mode="lines", line=line, scene=scene, hoverinfo="skip", showlegend=False
    )


def _menu(names: list[str], chosen: str, traces: list[int], left: float) -> dict[str, Any]:
    """The losses of one sphere; each has `TRACES` traces."""
    buttons = [
        {
            "label": name,
            "method": "restyle",
            "args": [{"visible": [other == name for other in names for _ in range(TRACES)]}, traces],
        }
        for name in names
    ]
    place = {"x": left, "xanchor": "left", "y": 1.0, "yanchor": "top"}
    return place | {"buttons": buttons, "active": names.index(chosen), "showactive": True}


def _slider(frames: int) -> dict[str, Any]:
    jump = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    steps = [
        {"label": str(frame), "method": "animate", "args": [[str(frame)], jump]} for frame in range(frames)
    ]
    position = {"x": 0.1, "len": 0.88, "y": -0.1, "yanchor": "top", "pad": {"t": 4}}
    return position | {"steps": steps, "currentvalue": {"prefix": "frame ", "font": {"size": 12}}}


def _play() -> dict[str, Any]:
    speed = {"frame": {"duration": 120, "redraw": True}, "transition": {"duration": 0}, "fromcurrent": True}
    button = {"label": "play", "method": "animate", "args": [None, speed]}
    place = {"type": "buttons", "x": 0, "xanchor": "left", "y": -0.16, "yanchor": "top"}
    return place | {"buttons": [button], "showactive": False}
