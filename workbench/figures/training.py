"""Training curves: losses, logit scale, gradient norm, cosine to the teacher, learning rate, validation."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.figures.style import GRID, INK, PAPER, QUIET, finish
from workbench.figures.training_panels import LOSSES, SKIPPED, Panel, Runs, training_panels

ROW_HEIGHT, GAP, TOP, BOTTOM = 200, 64, 144, 86  # pixels; a row's height includes the gap to the next


def training_figure(
    runs: Runs,
    title: str = "",
    subtitle: str = "",
    columns: int = 3,
    *,
    live: bool = False,
    last_step: int | None = None,
    stage: str = "",
) -> go.Figure:
    """Plot the training curves of one or several runs in small panels.

    `runs` is one run (any object with the tables `.metrics` and `.validations`), or a mapping from labels to
    runs or lists of runs, such as the seeds of one recipe, which share a colour. The figure of one run has
    the loss terms, that of several runs the total losses. Panels without finite values are omitted. Skipped
    steps are marked. With `live` the validation panel is reserved before the first validation, and the axes
    reach to `last_step`. Before the first step the figure shows the `stage` of the preparation. Buttons make
    the axes of losses logarithmic, and show single steps, their running mean, or both.
    """
    panels = training_panels(runs, live=live)
    if not panels:
        return _nothing_yet(title, subtitle, stage)
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    plots = ROW_HEIGHT * rows - GAP  # pixels from the first row's top to the last row's bottom
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[f"<b>{panel.title}</b>" for panel in panels],
        horizontal_spacing=0.18 / columns,
        vertical_spacing=GAP / plots,
    )
    height = plots + TOP + BOTTOM
    finish(
        figure, title, subtitle, y=1 - 24 / height, height=height, margin={"t": TOP, "b": BOTTOM},
        hovermode="x unified", legend={"y": -48 / plots, "yanchor": "top"},
    )  # fmt: skip
    figure.update_annotations(font_size=12.5, xanchor="left", yshift=4)
    in_legend: set[str] = set()
    for number, panel in enumerate(panels):
        row, column = number // columns + 1, number % columns + 1
        for curve in panel.curves:
            new = bool(curve.legend) and not curve.behind and curve.legend not in in_legend
            new = new and (live or len(curve.x) > 0) and (curve.name != SKIPPED or len(curve.x) > 0)
            in_legend |= {curve.legend} if new else set()
            figure.add_trace(curve.trace(showlegend=new), row=row, col=column)
        figure.update_yaxes(panel.axis, row=row, col=column)
        if panel.is_empty:
            _say_empty(figure, row, column)
        lowest = number + columns >= len(panels)
        # All panels share one zoom.
        figure.update_xaxes(title_text="step" if lowest else None, matches="x", row=row, col=column)
        figure.layout.annotations[number].update(x=figure.get_subplot(row, column).xaxis.domain[0])
    figure.update_layout(updatemenus=_buttons(figure, panels, columns, 1 + 26 / plots))
    if live and last_step:
        figure.update_xaxes(autorangeoptions={"include": [0, last_step]})
    return figure


def _buttons(figure: go.Figure, panels: Sequence[Panel], columns: int, y: float) -> list[dict[str, Any]]:
    """Menus for the axes of losses, and for single steps and their running means; they need no kernel."""
    axes = [
        f"{figure.get_subplot(number // columns + 1, number % columns + 1).yaxis.plotly_name}.type"
        for number, panel in enumerate(panels)
        if panel.title.startswith(LOSSES)
    ]
    curves = [curve for panel in panels for curve in panel.curves]
    steps = [number for number, curve in enumerate(curves) if curve.behind and len(curve.x)]
    means = [number + 1 for number in steps]  # each follows its steps
    look = {"type": "buttons", "direction": "right", "y": y, "yanchor": "bottom", "pad": {"t": 0, "b": 0}}
    look |= {"font": {"size": 11, "color": INK}, "bgcolor": PAPER, "bordercolor": GRID, "borderwidth": 1}
    menus = []
    if axes:
        scales = {f"{scale} loss": [dict.fromkeys(axes, scale)] for scale in ("linear", "log")}
        menus.append(look | {"x": 0, "xanchor": "left", "buttons": _menu("relayout", scales)})
    if steps:
        looks = {"mean and steps": (0.3, 1), "mean": (0, 1), "steps": (0.9, 0)}
        changes: dict[str, list[Any]] = {
            label: [{"opacity": [behind] * len(steps) + [mean] * len(means)}, steps + means]
            for label, (behind, mean) in looks.items()
        }
        menus.append(look | {"x": 1, "xanchor": "right", "buttons": _menu("restyle", changes)})
    return menus


def _menu(method: str, changes: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    return [{"label": label, "method": method, "args": args} for label, args in changes.items()]


def _say_empty(figure: go.Figure, row: int, column: int) -> None:
    """Instead of an axis that would measure nothing."""
    figure.update_yaxes(showticklabels=False, showgrid=False, row=row, col=column)
    axes = figure.get_subplot(row, column)
    place = {"x": sum(axes.xaxis.domain) / 2, "y": sum(axes.yaxis.domain) / 2}
    text = {"text": "not measured yet", "font": {"size": 12, "color": QUIET}, "showarrow": False}
    figure.add_annotation(xref="paper", yref="paper", **place, **text)


def _nothing_yet(title: str, subtitle: str, stage: str) -> go.Figure:
    figure = finish(go.Figure(), title, subtitle, y=0.88, height=220)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    centre = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper"}
    return figure.add_annotation(text=stage or "no step recorded yet", showarrow=False, **centre)
