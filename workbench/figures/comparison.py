"""How groups of runs compare: a dot for every value, and every difference to the baseline with its
interval."""

import numpy as np
import plotly.graph_objects as go
from pandas import DataFrame
from plotly.subplots import make_subplots

from workbench.figures.style import is_share, metric_label, run_colours, template

ROW, GAP, TOP, BOTTOM = 27, 62, 36, 96  # pixels: one metric, between two splits, above and below the plots
TITLE = 52  # pixels more above the plots where there is a title


def comparison_figure(table: DataFrame, title: str = "") -> go.Figure:
    """Metrics of groups of runs side by side, one block a split; right of them the differences to the first
    group.

    `table` is `Comparison.table`: rows (split, metric), columns (group, field) with the fields `value`, and
    for all groups but the first `difference`, `low` and `high`. Shares only, in per cent, and of those only
    the ones that have an interval where any has one. A filled dot: the 95 % interval excludes zero; a hollow
    one: it does not.
    """
    groups = list(dict.fromkeys(table.columns.get_level_values(0)))
    rest = groups[1:]
    shown = table[[is_share(metric) for _, metric in table.index]]
    if rest:
        known = shown[[(group, "low") for group in rest]].notna().any(axis=1)
        shown = shown[known] if known.any() else shown
    splits = list(dict.fromkeys(shown.index.get_level_values(0)))
    if not splits:
        return go.Figure().update_layout(
            template=template(), title={"text": title or "nothing to compare"}, height=160
        )
    sizes = [int((shown.index.get_level_values(0) == split).sum()) for split in splits]
    plots = ROW * sum(sizes) + GAP * (len(splits) - 1)
    columns = 2 if rest else 1
    figure = make_subplots(
        rows=len(splits),
        cols=columns,
        shared_yaxes=True,
        row_heights=sizes,
        horizontal_spacing=0.05,
        vertical_spacing=GAP / plots if len(splits) > 1 else 0,
    )
    colours = run_colours(groups)
    for row, split in enumerate(splits, start=1):
        part = shown.loc[[split]]
        for place, group in enumerate(groups):
            y = _rows(len(part), place, len(groups))
            values = 100 * part[(group, "value")].to_numpy(dtype=float)
            spread = 100 * part[(group, "spread")].to_numpy(dtype=float)
            figure.add_trace(_values(group, values, spread, y, colours[group], row == 1), row=row, col=1)
            if place:
                for trace in _differences(
                    group, part, _rows(len(part), place - 1, len(rest)), colours[group]
                ):
                    figure.add_trace(trace, row=row, col=2)
        labels = [metric_label(metric) for metric in part.index.get_level_values(1)]
        figure.update_yaxes(
            range=[len(part) - 0.5, -0.5], tickvals=list(range(len(part))), ticktext=labels, row=row
        )
        figure.update_yaxes(showgrid=False, tickfont_size=12, row=row, col=1)
        figure.update_yaxes(showgrid=False, showticklabels=False, row=row, col=2)
        top = figure.get_subplot(row, 1).yaxis.domain[1]
        heading = {
            "xref": "paper",
            "yref": "paper",
            "y": top,
            "yanchor": "bottom",
            "showarrow": False,
            "font": {"size": 12.5},
        }
        figure.add_annotation(text=f"<b>{split}</b>, per cent", x=0, xanchor="left", yshift=6, **heading)
        if rest:
            start = figure.get_subplot(row, 2).xaxis.domain[0]
            text = (
                f"difference to {groups[0]}, points"
                if len(rest) > 1
                else f"{rest[0]} minus {groups[0]}, points"
            )
            figure.add_annotation(text=text, x=start, xanchor="left", yshift=6, **heading)
            figure.add_vline(
                x=0, line={"color": colours[groups[0]], "width": 1.2}, layer="below", row=row, col=2
            )
    figure.update_xaxes(matches="x", col=1, rangemode="tozero")
    if rest:
        figure.update_xaxes(matches="x2", col=2)
    top = TOP + TITLE * bool(title)
    height = plots + top + BOTTOM
    figure.update_layout(
        template=template(),
        height=height,
        margin={"t": top, "b": BOTTOM},
        title={"text": title, "y": 1 - 24 / height},
        legend={"y": -44 / plots, "yanchor": "top"},
    )
    return figure


def _rows(metrics: int, place: int, groups: int) -> np.ndarray:
    """Heights of a group's dots: groups stand a little apart, so that equal values do not hide one
    another."""
    return np.arange(metrics) + 0.4 * (place - (groups - 1) / 2) / groups


def _values(
    group: str, values: np.ndarray, spread: np.ndarray, y: np.ndarray, colour: str, named: bool
) -> go.Scatter:
    return go.Scatter(
        x=values.astype(np.float32),
        y=y.astype(np.float32),
        error_x={
            "type": "data",
            "array": np.nan_to_num(spread).astype(np.float32),
            "thickness": 1.4,
            "width": 0,
            "color": colour,
        },
        mode="markers",
        marker={"color": colour, "size": 9},
        name=group,
        legendgroup=group,
        showlegend=named,
        customdata=np.nan_to_num(spread).astype(np.float32),
        hovertemplate="%{x:.1f} (± %{customdata:.1f} over seeds)",
    )


def _differences(group: str, part: DataFrame, y: np.ndarray, colour: str) -> list[go.Scatter]:
    """Dots with intervals: those that exclude zero filled, the others hollow and pale."""
    middle, low, high = (
        100 * part[(group, field)].to_numpy(dtype=float) for field in ("difference", "low", "high")
    )
    clear = (low > 0) | (high < 0)
    traces = []
    for chosen, symbol, opacity in ((clear, "circle", 1.0), (~clear, "circle-open", 0.6)):
        if not chosen.any():
            continue
        bounds = np.stack([low, high], axis=1)[chosen].astype(np.float32)
        traces.append(
            go.Scatter(
                x=middle[chosen].astype(np.float32),
                y=y[chosen].astype(np.float32),
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": (high - middle)[chosen].astype(np.float32),
                    "arrayminus": (middle - low)[chosen].astype(np.float32),
                    "thickness": 2,
                    "width": 0,
                    "color": colour,
                },
                mode="markers",
                marker={"color": colour, "size": 10, "symbol": symbol, "line": {"width": 2, "color": colour}},
                opacity=opacity,
                name=group,
                legendgroup=group,
                showlegend=False,
                customdata=bounds,
                hovertemplate="%{x:+.1f} [%{customdata[0]:+.1f}, %{customdata[1]:+.1f}]",
            )
        )
    return traces
