"""A figure in a notebook that is updated while it is open and static afterwards."""

import json
import time
from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.figures.display import figure_bundle, plain
from workbench.widgets.notebook import as_saved, browser_side, view_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.figures.training_panels import Panel


COPY = 20.0  # seconds between two copies for the saved notebook
PATIENCE = 30.0  # seconds without a message after which the browser says that the figure no longer moves


class LiveFigure:
    """A figure in a notebook that is updated while it is open, and a static plotly figure once closed.

    Only a widget can be updated, and only a static figure survives in a saved notebook or a page that is
    loaded again. Below the widget there is therefore a copy, which the browser hides while it has the widget,
    and closing replaces the widget with a static figure under the same display id. Updates and the
    replacement may come from any thread and arrive while a cell runs (tested with JupyterLab 4.6 and
    ipykernel 7.4). This is not plotly's FigureWidget, which loads 5 MB of plotly.js within the two seconds
    that anywidget allows for initialisation. If training leaves the browser little time, it misses them and
    stays empty. This widget loads plotly.js afterwards, and skips updates if the browser is too slow.
    """

    def __init__(self, figure: "go.Figure", copy: "go.Figure") -> None:
        import traitlets
        from IPython.display import display

        self._picture: dict[str, Any] = {}
        self._widget = browser_side("live_figure", "figure", "words", patience=traitlets.Float(PATIENCE))
        self._widget.add_class("workbench-widget-1")
        self.rebuild(figure)
        saved = figure_bundle(copy, library=False)
        bundles = view_of(self._widget), as_saved([saved], 1, "follow the run"), saved
        # The handles are None outside of IPython.
        self._handles = [display(bundle, raw=True, display_id=True) for bundle in bundles]
        self._copied = time.monotonic()

    def rebuild(self, figure: "go.Figure") -> None:
        """Show a new figure."""
        self._picture = plain(figure)
        # Keeps the zoom that a user has chosen.
        self._picture["layout"]["uirevision"] = "live"
        self._widget.figure = json.dumps(self._picture)

    def move(self, panels: Sequence["Panel"], subtitle: str) -> None:
        """Replace the points of the existing curves."""
        curves = [curve for panel in panels for curve in panel.curves]
        for trace, curve in zip(self._picture["data"], curves, strict=True):
            trace |= {"x": _array(curve.x), "y": _array(curve.y), "mode": curve.mode}
        self._picture["layout"]["title"]["subtitle"]["text"] = subtitle
        self._widget.figure = json.dumps(self._picture)

    def say(self, subtitle: str) -> None:
        """Change the line below the title."""
        self._widget.words = subtitle

    @property
    def needs_copy(self) -> bool:
        """Whether the copy in the notebook is old."""
        return time.monotonic() - self._copied > COPY

    def keep(self, figure: "go.Figure") -> None:
        """Replace the copy that a saved notebook shows."""
        self._copied = time.monotonic()
        self._update(2, figure_bundle(figure, library=False))

    def close(self, figure: "go.Figure") -> None:
        """Replace the widget with a static figure, and remove the copy."""
        self._update(0, figure_bundle(figure))
        for place in (1, 2):
            self._update(place, {"text/plain": ""})
        self._widget.close()

    def _update(self, place: int, bundle: dict[str, Any]) -> None:
        if self._handles[place] is not None:
            self._handles[place].update(bundle, raw=True)


def _array(values: np.ndarray) -> dict[str, str]:
    """Encode values as float32 in the JSON format of plotly.js."""
    return {"dtype": "f4", "bdata": b64encode(values.astype("<f4").tobytes()).decode()}
