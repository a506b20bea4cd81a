"""A figure in a notebook that moves while it is open, then stays."""

import json
from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.figures.display import figure_bundle, plain
from workbench.widgets.notebook import browser_side

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.figures.training_panels import Panel


PATIENCE = 30.0  # seconds without a message after which the browser says that the figure no longer moves


class LiveFigure:
    """A figure in a notebook that moves while it is open, and is a plain plotly figure once closed.

    Only a widget moves, and only a plain figure is still there when a saved notebook is opened again: the
    one takes the other's place under the same display id. Messages to a widget, and that replacement, may
    come from any thread and arrive while a cell runs (measured: JupyterLab 4.6, ipykernel 7.4). The widget is
    not plotly's own FigureWidget: that one reads 5 MB of plotly.js within the two seconds which anywidget
    gives a widget to get ready, and where training leaves the browser little time it misses them and stays
    empty. Ours reads it afterwards, and leaves out pictures it is too slow for.
    """

    def __init__(self, figure: "go.Figure") -> None:
        import traitlets
        from IPython.display import display

        self._picture: dict[str, Any] = {}
        self._widget = browser_side("live_figure", "figure", "words", patience=traitlets.Float(PATIENCE))
        self.rebuild(figure)
        self._handle = display(self._widget, display_id=True)

    def rebuild(self, figure: "go.Figure") -> None:
        """Show another figure."""
        self._picture = plain(figure)
        # A view that somebody has zoomed stays zoomed.
        self._picture["layout"]["uirevision"] = "live"
        self._widget.figure = json.dumps(self._picture)

    def move(self, panels: Sequence["Panel"], subtitle: str) -> None:
        """Give the curves that are there new points."""
        curves = [curve for panel in panels for curve in panel.curves]
        for trace, curve in zip(self._picture["data"], curves, strict=True):
            trace |= {"x": _array(curve.x), "y": _array(curve.y), "mode": curve.mode}
        self._picture["layout"]["title"]["subtitle"]["text"] = subtitle
        self._widget.figure = json.dumps(self._picture)

    def say(self, subtitle: str) -> None:
        """Change the line below the title."""
        self._widget.words = subtitle

    def close(self, figure: "go.Figure") -> None:
        """Leave a plain figure in the widget's place."""
        if self._handle is not None:  # None outside of IPython
            self._handle.update(figure_bundle(figure), raw=True)
        self._widget.close()


def _array(values: np.ndarray) -> dict[str, str]:
    """float32 values as plotly.js reads them from JSON."""
    return {"dtype": "f4", "bdata": b64encode(values.astype("<f4").tobytes()).decode()}
