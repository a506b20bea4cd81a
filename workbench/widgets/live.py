"""A figure in a notebook that is updated while it is open and static afterwards."""

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
    """A figure in a notebook that is updated while it is open, and a static plotly figure once closed.

    Only a widget can be updated, and only a static figure survives in a saved notebook. Closing therefore
    replaces the widget under the same display id. Updates and the replacement may come from any thread and
    arrive while a cell runs (tested with JupyterLab 4.6 and ipykernel 7.4). This is not plotly's
    FigureWidget, which loads 5 MB of plotly.js within the two seconds that anywidget allows for
    initialisation. If training leaves the browser little time, it misses them and stays empty. This widget
    loads plotly.js afterwards, and skips updates if the browser is too slow.
    """

    def __init__(self, figure: "go.Figure") -> None:
        import traitlets
        from IPython.display import display

        self._picture: dict[str, Any] = {}
        self._widget = browser_side("live_figure", "figure", "words", patience=traitlets.Float(PATIENCE))
        self.rebuild(figure)
        self._handle = display(self._widget, display_id=True)

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

    def close(self, figure: "go.Figure") -> None:
        """Replace the widget with a static figure."""
        if self._handle is not None:  # None outside of IPython
            self._handle.update(figure_bundle(figure), raw=True)
        self._widget.close()


def _array(values: np.ndarray) -> dict[str, str]:
    """Encode values as float32 in the JSON format of plotly.js."""
    return {"dtype": "f4", "bdata": b64encode(values.astype("<f4").tobytes()).decode()}
