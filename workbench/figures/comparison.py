"""Compares groups of runs: values as dots, differences to the baseline as dots with intervals."""

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame
from plotly.subplots import make_subplots

from workbench.figures.style import finish, heading, intervals, is_share, metric_label, run_colours

ROW, GAP, TOP, BOTTOM = (
    27,
    62,
    64,
    96,
)  # pixels: one metric, between two splits, above (the mode bar too) and below


def comparison_figure(table: DataFrame) -> go.Figure:
    """Plot the metrics of several groups of runs, and their differences to the first group.

    `table` is `Comparison.table`: rows (split, metric), columns (group, field). Every group has the field
    `value`; all but the first also have `difference`, `low` and `high`. There is one block per split, with
    values on the left and differences on the right. Only shares are plotted, in per cent. If any of them has
    an interval, those without one are omitted. A filled dot means that the 95 % interval excludes zero, a
    hollow one that it does not.
    """
    groups = list(dict.fromkeys(table.columns.get_level_values(0)))
    others = groups[1:]
    rows = table[[is_share(metric) for _, metric in table.index]]
    if others:
        known = rows[[(group, "low") for group in others]].notna().any(axis=1)
        rows = rows[known] if known.any() else rows
    splits = list(dict.fromkeys(rows.index.get_level_values(0)))
    if not splits:
        return finish(go.Figure(), "nothing to compare", height=160)
    sizes = [int((rows.index.get_level_values(0) == split).sum()) for split in splits]
    plots = ROW * sum(sizes) + GAP * (len(splits) - 1)
    figure = make_subplots(
        rows=len(splits),
        cols=2 if others else 1,
        shared_yaxes=True,
        row_heights=sizes,
        horizontal_spacing=0.05,
        vertical_spacing=GAP / plots if len(splits) > 1 else 0,
    )
    colours = run_colours(groups)
    for row, split in enumerate(splits, start=1):
        part = rows.loc[[split]]
        for index, group in enumerate(groups):
            y, colour = _heights(len(part), index, len(groups)), colours[group]
            figure.add_trace(_values(group, part[group], y, colour, row == 1), row=row, col=1)
            if index:
                y = _heights(len(part), index - 1, len(others))
                for trace in _differences(group, part[group], y, colour):
                    figure.add_trace(trace, row=row, col=2)
        ticks = [metric_label(metric) for metric in part.index.get_level_values(1)]
        span = {"range": [len(part) - 0.5, -0.5], "tickvals": list(range(len(part))), "ticktext": ticks}
        figure.update_yaxes(span, row=row)
        figure.update_yaxes(showgrid=False, tickfont_size=12, row=row, col=1)
        figure.update_yaxes(showgrid=False, showticklabels=False, row=row, col=2)
        top = figure.get_subplot(row, 1).yaxis.domain[1]
        figure.add_annotation(heading(f"<b>{split}</b>, per cent", 0, top))
        if others:
            minuend = "difference to" if len(others) > 1 else f"{others[0]} minus"
            start = figure.get_subplot(row, 2).xaxis.domain[0]
            figure.add_annotation(heading(f"{minuend} {groups[0]}, points", start, top))
            line = {"color": colours[groups[0]], "width": 1.2}
            figure.add_vline(x=0, line=line, layer="below", row=row, col=2)
    figure.update_xaxes(matches="x", col=1, rangemode="tozero")
    if others:
        figure.update_xaxes(matches="x2", col=2)
    height, legend = plots + TOP + BOTTOM, {"y": -44 / plots, "yanchor": "top"}
    margin = {"t": TOP, "b": BOTTOM}
    return finish(figure, y=1 - 24 / height, height=height, margin=margin, legend=legend)


def _heights(metrics: int, group: int, groups: int) -> np.ndarray:
    """The y values of a group's dots, shifted by group so that equal values do not hide each other."""
    return np.arange(metrics) + 0.4 * (group - (groups - 1) / 2) / groups


def _values(group: str, part: DataFrame, y: np.ndarray, colour: str, in_legend: bool) -> go.Scatter:
    spread = np.nan_to_num(100 * part["spread"].to_numpy(dtype=float)).astype(np.float32)
    return go.Scatter(
        x=(100 * part["value"].to_numpy(dtype=float)).astype(np.float32),
        y=y.astype(np.float32),
        error_x={"type": "data", "array": spread, "thickness": 1.4, "width": 0, "color": colour},
        mode="markers",
        marker={"color": colour, "size": 9},
        cliponaxis=False,
        name=group,
        legendgroup=group,
        showlegend=in_legend,
        customdata=[f" (± {value:.1f} over seeds)" if value else "" for value in spread],
        hovertemplate="%{x:.1f}%{customdata}",
    )


def _differences(group: str, part: DataFrame, y: np.ndarray, colour: str) -> list[go.Scatter]:
    """Dots with intervals: filled if the interval excludes zero, otherwise hollow and pale."""
    bounds = (100 * part[["difference", "low", "high"]].to_numpy(dtype=float)).T
    clear = (bounds[1] > 0) | (bounds[2] < 0)
    traces = []
    for chosen, symbol, opacity in ((clear, "circle", 1.0), (~clear, "circle-open", 0.6)):
        if not chosen.any():
            continue
        middle, low, high = bounds[:, chosen]
        traces.append(
            go.Scatter(
                x=middle.astype(np.float32),
                y=y[chosen].astype(np.float32),
                error_x=intervals(middle, low, high, colour, 2),
                mode="markers",
                marker={"color": colour, "size": 10, "symbol": symbol, "line": {"width": 2, "color": colour}},
                opacity=opacity,
                name=group,
                legendgroup=group,
                showlegend=False,
                customdata=np.stack([low, high], axis=1).astype(np.float32),
                hovertemplate="%{x:+.1f} [%{customdata[0]:+.1f}, %{customdata[1]:+.1f}]",
            )
        )
    return traces
