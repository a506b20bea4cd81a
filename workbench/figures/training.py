"""Training curves: losses, logit scale, gradient norm, cosine to the teacher, learning rate, validation."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.figures.style import QUIET, finish
from workbench.figures.training_panels import SKIPPED, Runs, training_panels

ROW_HEIGHT, GAP, TOP, BOTTOM = 200, 64, 100, 86  # pixels; a row's height includes the gap to the next


def training_figure(
    runs: Runs,
    title: str = "",
    subtitle: str = "",
    columns: int = 3,
    *,
    live: bool = False,
    last_step: int | None = None,
) -> go.Figure:
    """Plot the training curves of one or several runs in small panels.

    `runs` is one run (any object with the tables `.metrics` and `.validations`), or a mapping from labels to
    runs or lists of runs, such as the seeds of one recipe, which share a colour. The figure of one run has
    the loss terms, that of several runs the total losses. Panels without finite values are omitted. Skipped
    steps are marked. With `live` the validation panel is reserved before the first validation, and the axes
    reach to `last_step`.
    """
    panels = training_panels(runs, live=live)
    if not panels:
        return _nothing_yet(title, subtitle)
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
    if live and last_step:
        figure.update_xaxes(autorangeoptions={"include": [0, last_step]})
    return figure


def _say_empty(figure: go.Figure, row: int, column: int) -> None:
    """Instead of an axis that would measure nothing."""
    figure.update_yaxes(showticklabels=False, showgrid=False, row=row, col=column)
    axes = figure.get_subplot(row, column)
    place = {"x": sum(axes.xaxis.domain) / 2, "y": sum(axes.yaxis.domain) / 2}
    text = {"text": "not measured yet", "font": {"size": 12, "color": QUIET}, "showarrow": False}
    figure.add_annotation(xref="paper", yref="paper", **place, **text)


def _nothing_yet(title: str, subtitle: str) -> go.Figure:
    figure = finish(go.Figure(), title, subtitle, y=0.88, height=220)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    centre = {"x": 0.5, "y": 0.5, "xref": "paper", "yref": "paper"}
    return figure.add_annotation(text="no step recorded yet", showarrow=False, **centre)
