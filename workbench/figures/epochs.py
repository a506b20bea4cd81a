"""What a student gains and forgets: zero-shot accuracy kept and retrieval, by epoch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.figures.style import finish, heading, metric_label, run_colours

ByEpoch = Mapping[int, Mapping[str, Mapping[str, float]]]  # scores by epoch, split or set, and metric
Key = tuple[str, str]  # split or set, and metric


def epochs_figure(
    runs: Mapping[str, ByEpoch],
    zero_shot: Key,
    retrieval: str,
    *,
    title: str,
    subtitle: str = "",
    recall: int = 1,
) -> go.Figure:
    """Plot zero-shot accuracy kept, text-to-image and image-to-text recall against the epoch, side by side.

    `runs` maps labels to the results of `Run.evaluate_epochs`. `zero_shot` is the set and the metric of which
    the share of the start's (epoch 0) is shown, and `retrieval` the split of R@`recall`. All in per cent. The
    first run is grey. Raises ValueError for a run without epoch 0, or without one of these results.
    """
    metrics = [f"{direction}_r{recall}" for direction in ("text_to_image", "image_to_text")]
    keys = [zero_shot, *((retrieval, name) for name in metrics)]
    figure = make_subplots(1, 3, horizontal_spacing=0.06)
    for (label, by_epoch), colour in zip(runs.items(), run_colours(runs).values(), strict=True):
        epochs = sorted(by_epoch)
        curves = [np.array([_score(label, by_epoch, epoch, key) for epoch in epochs]) for key in keys]
        if not epochs or epochs[0] != 0 or not curves[0][0]:
            raise ValueError(f"epochs_figure: {label} has no zero-shot accuracy at its start, epoch 0")
        curves[0] = curves[0] / curves[0][0]
        for column, curve in enumerate(curves, 1):
            figure.add_scatter(
                x=epochs,
                y=(100 * curve).astype(np.float32),
                mode="lines+markers",
                line={"color": colour, "width": 1.8},
                marker={"color": colour, "size": 6},
                name=label,
                legendgroup=label,
                showlegend=column == 1,
                hovertemplate="epoch %{x}: %{y:.1f} %",
                row=1,
                col=column,
            )
    figure.update_xaxes(title_text="epoch", rangemode="tozero")
    titles = ["zero-shot kept, % of the start", *(f"{metric_label(name)}, %" for name in metrics)]
    panels: list[dict[str, Any]] = [
        heading(text, figure.layout[f"xaxis{number or ''}"].domain[0], 1.0)
        for text, number in zip(titles, ("", 2, 3), strict=True)
    ]
    return finish(
        figure, title, subtitle, y=0.94, height=380, margin={"t": 110, "b": 92, "l": 48},
        legend={"y": -0.25, "yanchor": "top"}, annotations=panels, showlegend=len(runs) > 1,
    )  # fmt: skip


def _score(label: str, by_epoch: ByEpoch, epoch: int, key: Key) -> float:
    split, name = key
    try:
        return float(by_epoch[epoch][split][name])
    except KeyError:
        held = ", ".join(f"{split}: {', '.join(scores)}" for split, scores in by_epoch[epoch].items())
        raise ValueError(f"epochs_figure: epoch {epoch} of {label} has no {key}; it has {held}") from None
