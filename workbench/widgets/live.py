"""Records read while they are written, and a figure that moves, then stays."""

import json
import os
from array import array
from base64 import b64encode
from bisect import bisect_left
from collections.abc import Sequence
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.widgets.notebook import browser_side, plain, plain_bundle

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from pandas import DataFrame

    from workbench.figures.training_panels import Panel

TAIL = 64  # bytes before the reading position that must still be what they were


class Records:
    """metrics.jsonl, read piece by piece while another process writes it.

    A last line without its end is left for the next time. A file that was rewritten, or cut and grown again
    (a run that resumes cuts off what came after its checkpoint), is read anew; where a step comes a second
    time, the first one and all that followed it are forgotten.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tables = {"step": _Table(), "validation": _Table()}
        self._place = 0
        self._tail = b""
        self._file: tuple[int, int] | None = None

    @property
    def metrics(self) -> "DataFrame":
        """One row a training step."""
        return self._tables["step"].frame()

    @property
    def validations(self) -> "DataFrame":
        """One row a validation."""
        return self._tables["validation"].frame()

    @property
    def steps(self) -> int:
        """How many training steps are known."""
        return len(self._tables["step"])

    def read(self) -> None:
        """Take in what was written since the last time."""
        if not self.path.is_file():
            self._forget()
            return
        with open(self.path, "rb") as stream:
            stat = os.fstat(stream.fileno())
            stream.seek(max(0, self._place - len(self._tail)))
            file = stat.st_dev, stat.st_ino
            if file != self._file or stream.read(len(self._tail)) != self._tail:
                self._forget()
            self._file = file
            stream.seek(self._place)
            new = stream.read()
        whole = new[: new.rfind(b"\n") + 1]
        if not whole:
            return
        self._place += len(whole)
        self._tail = (self._tail + whole)[-TAIL:]
        for line in whole.splitlines():
            self._add(line)

    def _add(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            kind, step = record.pop("kind"), record["step"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # a line that a full disk or a kill left in pieces
        if kind == "step":
            # A validation comes after the step of its number, so one of this step or later belongs to an
            # earlier try.
            self._tables["validation"].cut(step)
        if kind in self._tables:
            self._tables[kind].add(record)

    def _forget(self) -> None:
        self._place, self._tail, self._file = 0, b"", None
        self._tables = {kind: _Table() for kind in self._tables}


class _Table:
    """Columns of numbers that grow by a record at a time."""

    def __init__(self) -> None:
        self._columns: dict[str, array[float]] = {"step": array("d")}

    def __len__(self) -> int:
        return len(self._columns["step"])

    def add(self, record: dict[str, Any]) -> None:
        self.cut(record["step"])
        rows = len(self)
        for name in record:
            if name not in self._columns:
                self._columns[name] = array("d", [nan]) * rows
        for name, column in self._columns.items():
            value = record.get(name)
            column.append(float(value) if isinstance(value, int | float) else nan)

    def cut(self, step: int) -> None:
        """Drop the rows of `step` and later."""
        steps = self._columns["step"]
        if steps and step <= steps[-1]:
            first = bisect_left(steps, step)
            for column in self._columns.values():
                del column[first:]

    def frame(self) -> "DataFrame":
        from pandas import DataFrame

        return DataFrame({name: np.array(column) for name, column in self._columns.items()})


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
        from IPython.display import display

        self._picture: dict[str, Any] = {}
        self._widget = browser_side("live_figure", "figure", "words")
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
            self._handle.update(plain_bundle(figure), raw=True)
        self._widget.close()


def _array(values: np.ndarray) -> dict[str, str]:
    """float32 values as plotly.js reads them from JSON."""
    return {"dtype": "f4", "bdata": b64encode(values.astype("<f4").tobytes()).decode()}
