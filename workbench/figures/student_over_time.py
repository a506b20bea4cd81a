"""A student at several points of its training beside its teacher: similarity matrices, and maps."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from workbench.figures.cluster_map import legend_colours, legend_rank
from workbench.figures.style import INK, PALETTE, QUIET, finish


def similarity_figure(
    students: Mapping[str, np.ndarray],
    teacher: Float[np.ndarray, "n n"],
    *,
    title: str,
    subtitle: str = "",
    captions: Sequence[str] = (),
) -> go.Figure:
    """Show a batch's cosines of pictures (rows) with captions (columns): a student's beside its teacher's.

    `students` maps points of the training to matrices [n, n], which a slider moves through. Matching
    pairs lie on the diagonal. Each matrix has a colour scale of its own, from lowest to highest, because
    the towers of two models use different ranges of cosines. `captions` are the hover texts. Raises
    ValueError unless all matrices have one shape.
    """
    shapes = {matrix.shape for matrix in (*students.values(), teacher)}
    if len(shapes) != 1 or not students:
        raise ValueError(f"similarity_figure: matrices of shapes {sorted(shapes)}; all need the same one")
    figure = make_subplots(
        cols=2, horizontal_spacing=0.04, subplot_titles=["<b>student</b>", "<b>teacher</b>"]
    )
    words = list(captions) or [str(number) for number in range(len(teacher))]
    names = np.array([[f"picture of: {row}<br>caption: {column}" for column in words] for row in words])
    for column, matrix in enumerate((next(iter(students.values())), teacher), start=1):
        figure.add_heatmap(
            z=matrix.astype(np.float32),
            colorscale="Blues",
            showscale=False,
            customdata=names if captions else None,
            hovertemplate="%{customdata}<br>cosine %{z:.2f}<extra></extra>" if captions else None,
            row=1,
            col=column,
        )
        figure.update_yaxes(scaleanchor="x" if column == 1 else "x2", autorange="reversed", row=1, col=column)
    for name, matrix in students.items():
        frame = go.Heatmap(z=matrix.astype(np.float32))
        figure.frames += (go.Frame(name=name, data=[frame], traces=[0]),)
    figure.update_xaxes(showticklabels=False, title_text="captions", constrain="domain")
    figure.update_yaxes(showticklabels=False, showgrid=False, constrain="domain")
    figure.update_yaxes(title_text="pictures", col=1)
    return _played(figure, list(students), title, subtitle, height=620)


def evolution_figure(
    students: Mapping[str, Float[np.ndarray, "n 2"]],
    teacher: Float[np.ndarray, "n 2"],
    groups: Sequence[Any] | np.ndarray,
    overlaps: Mapping[str, float],
    *,
    title: str,
    subtitle: str = "",
    chance: float = 0.0,
    words: Sequence[str] = (),
    quiet: Collection[str] = (),
) -> go.Figure:
    """Show a student's map at several points of its training beside its teacher's, coloured by `groups`.

    `students` are positions [n, 2] of the same points from one map of all of them together, which a slider
    moves through. Each is centred and scaled to the same spread, because a map puts embeddings of different
    epochs far apart, which means nothing. Below are the `overlaps` of the points' neighbours with the
    teacher's, between the complete embeddings, and what `chance` gives. Raises ValueError unless `students`
    and `overlaps` have the same names.
    """
    if list(students) != list(overlaps) or not students:
        raise ValueError(f"evolution_figure: positions of {list(students)} and overlaps of {list(overlaps)}")
    figure = make_subplots(
        rows=2,
        cols=2,
        specs=[[{}, {}], [{"colspan": 2}, None]],
        row_heights=[0.76, 0.24],
        horizontal_spacing=0.03,
        vertical_spacing=0.14,
        subplot_titles=["<b>student</b>", "<b>teacher</b>", "<b>neighbours shared with the teacher</b>"],
    )
    labels = np.array([str(group) for group in groups])
    texts = np.array(list(words) or labels)
    entries = legend_colours(labels, quiet)
    members = [np.flatnonzero(np.isin(labels, inside)) for _, inside, _ in entries]
    students = {name: _spread(positions) for name, positions in students.items()}
    first = next(iter(students.values()))
    for column, positions in enumerate((first, teacher), start=1):
        for (name, _, colour), rows in zip(entries, members, strict=True):
            figure.add_scatter(
                x=positions[rows, 0].astype(np.float32),
                y=positions[rows, 1].astype(np.float32),
                mode="markers",
                name=name,
                legendgroup=name,
                legendrank=legend_rank(colour),
                showlegend=column == 1,
                marker={"size": 5, "color": colour, "opacity": 0.8},
                text=texts[rows],
                hovertemplate="%{text}<extra></extra>",
                row=1,
                col=column,
            )
    values = list(overlaps.values())
    line = {"x": list(overlaps), "y": values, "line": {"color": PALETTE[0]}, "showlegend": False}
    figure.add_scatter(**line, mode="lines+markers", hovertemplate="%{y:.1%}<extra></extra>", row=2, col=1)
    now = {"mode": "markers+text", "marker": {"size": 13, "color": INK}, "textposition": "top center"}
    figure.add_scatter(**_now(overlaps, next(iter(students))), **now, showlegend=False, row=2, col=1)
    figure.add_hline(y=chance, line={"color": QUIET, "dash": "dot", "width": 1.2}, row=2, col=1)
    # The teacher's dots stand in every frame, as they are: plotly hides a plot of which nothing moves.
    drawn = [*range(2 * len(entries)), len(figure.data) - 1]
    resting = [go.Scatter()] * len(entries)
    for name, positions in students.items():
        places = positions.astype(np.float32)
        moved = [go.Scatter(x=places[rows, 0], y=places[rows, 1]) for rows in members]
        state = [*moved, *resting, go.Scatter(**_now(overlaps, name))]
        figure.frames += (go.Frame(name=name, data=state, traces=drawn),)
    everywhere = np.concatenate(list(students.values()))
    for axis, low, high in zip("xy", everywhere.min(0), everywhere.max(0), strict=True):
        room = 0.05 * (high - low) + 1e-6
        getattr(figure, f"update_{axis}axes")(range=[low - room, high + room], row=1, col=1)
    figure.update_xaxes(visible=False, row=1)
    figure.update_yaxes(visible=False, row=1)
    figure.update_xaxes(type="category", row=2, col=1)
    figure.update_yaxes(tickformat=".0%", range=[0, 1.35 * max(*values, chance, 1e-3)], row=2, col=1)
    return _played(figure, list(students), title, subtitle, height=760)


def _spread(positions: np.ndarray) -> np.ndarray:
    """The positions around 0, with a mean square distance of 1."""
    centred = positions - positions.mean(0)
    return np.asarray(centred / max(np.sqrt(np.square(centred).sum(1).mean()), 1e-12))


def _now(overlaps: Mapping[str, float], name: str) -> dict[str, Any]:
    return {"x": [name], "y": [overlaps[name]], "text": [f"{overlaps[name]:.1%}"]}


def _played(figure: go.Figure, names: list[str], title: str, subtitle: str, height: int) -> go.Figure:
    """The figure with a slider, a play button, and a legend below them."""
    still = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    speed = {"frame": {"duration": 900, "redraw": True}, "transition": {"duration": 600}, "fromcurrent": True}
    steps = [{"label": name, "method": "animate", "args": [[name], still]} for name in names]
    top = -44 / (height - 260)
    slider = {
        "x": 0.12,
        "len": 0.86,
        "y": top,
        "yanchor": "top",
        "steps": steps,
        "currentvalue": {"visible": False},
    }
    play = {"label": "play", "method": "animate", "args": [None, speed]}
    button = {"type": "buttons", "buttons": [play], "showactive": False, "x": 0, "xanchor": "left"}
    return finish(
        figure, title, subtitle, height=height, margin={"t": 116, "b": 160, "l": 40},
        sliders=[slider], updatemenus=[button | {"y": top - 0.02, "yanchor": "top"}],
        legend={"y": top - 0.155, "yanchor": "top", "itemsizing": "constant"}, hovermode="closest",
    )  # fmt: skip
