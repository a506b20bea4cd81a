"""A table of runs to filter and sort. The selected runs are plotted together and their recipes compared."""

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

from workbench.errors import SettingError
from workbench.figures.display import plain
from workbench.figures.style import run_colours
from workbench.runs.filter import matching, unknown_settings
from workbench.runs.records import Records
from workbench.runs.run import Run
from workbench.runs.table import (
    RunRow,
    Score,
    find_runs,
    headline_scores,
    labels,
    setting_differences,
    sorted_rows,
)
from workbench.widgets.notebook import NotebookWidget, browser_side, is_live
from workbench.widgets.run_table_html import differences_html, page, runs_html

COLUMNS = ("name", "folder", "state", "reason", "seed", "step", "total", "updated")
MOST_STEPS = 4_000  # the most steps of a run whose records are kept
FIRST_DOWN = ("step", "updated")  # columns that, like scores, are first sorted in descending order


class RunBrowser(NotebookWidget):
    """Shows the runs in a folder as a table, with the curves and differing settings of the selected ones.

        browser = RunBrowser("runs")
        browser                              # the last line of a cell
        workbench.compare(browser.picked)    # the runs selected in the table

    `folder_or_runs` is a folder, which is searched two levels deep (a sweep's folder, for example), or a list
    of runs or run folders. The filter takes words of the name, folder or state, and settings
    (`training.lr=0.001`, `step>30`). Damaged runs are listed with a reason. Under `WORKBENCH_HEADLESS=1` a
    static table and the selected curves are shown. Raises SettingError for a folder that does not exist.
    """

    def __init__(
        self, folder_or_runs: str | PathLike[str] | Sequence[Any], *, live: bool | None = None
    ) -> None:
        self._source = folder_or_runs
        self._live = is_live(live)
        self.filter = ""
        self.column: str | Score = "updated"
        self.descending = True
        self._picked: list[Path] = []
        self.read()

    def read(self) -> None:
        """Read the folders again. Selected runs stay selected if they still exist."""
        self.rows = find_runs(self._source)
        self.scores = headline_scores(self.rows)
        self.choose(picked=[row.path for row in self.picked_rows])

    @property
    def shown(self) -> list[RunRow]:
        """The rows that match the filter, sorted."""
        return sorted_rows(matching(self.rows, self.filter), self.column, self.descending)

    @property
    def picked_rows(self) -> list[RunRow]:
        """The selected rows in the order of selection, including those that the filter hides."""
        rows = {row.path: row for row in self.rows if row.recipe is not None}
        return [rows[path] for path in self._picked if path in rows]

    @property
    def picked(self) -> list[Run]:
        """The selected runs, for instance for `workbench.compare`."""
        return [Run(row.path) for row in self.picked_rows]

    @property
    def figure(self) -> Any:
        """The training curves of the selected runs as a plotly figure, None if no run is selected."""
        from workbench.figures.training import training_figure

        rows = self.picked_rows
        if not rows:
            return None
        names = [escape(label) for label in labels(rows)]
        runs = {name: _records(row.path) for name, row in zip(names, rows, strict=True)}
        return training_figure(runs, names[0] if len(names) == 1 else f"{len(names)} runs")

    @property
    def differences(self) -> dict[str, list[Any]]:
        """The settings that differ between the selected runs, with their values in each run."""
        return setting_differences([row.recipe for row in self.picked_rows if row.recipe is not None])

    def choose(
        self,
        *,
        filter: str | None = None,
        sort: str | Score | None = None,
        picked: Sequence[str | PathLike[str]] | None = None,
    ) -> None:
        """Filter the table, sort it by a column, or select run folders in place of the current selection.

        A column is a name such as "name", or a score such as ("test", "text_to_image_r1"). Sorting by the
        same column again reverses the order. Raises SettingError for an unknown column.
        """
        self.filter = self.filter if filter is None else filter
        if sort is not None:
            if not isinstance(sort, tuple) and sort not in COLUMNS:
                remedy = f"Use one of {', '.join(COLUMNS)}, or a pair such as ('test', 'text_to_image_r1')."
                raise SettingError("sort", sort, "there is no such column", remedy)
            down = isinstance(sort, tuple) or sort in FIRST_DOWN
            self.descending = not self.descending if sort == self.column else down
            self.column = sort
        if picked is not None:
            self._picked = list(dict.fromkeys(map(Path, picked)))

    def click(self, message: Mapping[str, Any]) -> bool:
        """Handle a message of the browser, and return whether the curves may have changed.

        Messages are `{"filter": text}`, `{"sort": column}`, `{"pick": folder}`, which selects a run or
        deselects it, `{"release": True}`, which clears the selection, and `{"read": True}`.
        """
        if "filter" in message:
            self.choose(filter=str(message["filter"]))
        elif "sort" in message:
            scores = {"/".join(score): score for score in self.scores}
            self.choose(sort=scores.get(message["sort"], message["sort"]))
        elif "pick" in message:
            path, before = Path(message["pick"]), self._picked
            self.choose(picked=[other for other in before if other != path] + [path] * (path not in before))
        elif "release" in message:
            self.choose(picked=[])
        elif "read" in message:
            self.read()
        return not message.keys() & {"filter", "sort"}

    def _colours(self) -> dict[Path, str]:
        colours = run_colours(labels(self.picked_rows)).values()
        return dict(zip([row.path for row in self.picked_rows], colours, strict=True))

    def _table(self, answers: bool = False) -> str:
        order = self.column, self.descending
        return runs_html(self.shown, self.scores, picked=self._colours(), order=order, answers=answers)

    def _differences(self) -> str:
        rows = self.picked_rows
        if len(rows) < 2:
            return ""
        title = '<div style="font-weight:600;font-size:14px;margin:14px 0 4px">Settings that differ</div>'
        return title + differences_html(self.differences, labels(rows), list(self._colours().values()))

    def _words(self) -> str:
        words = f"{len(self.shown)} of {len(self.rows)} runs"
        if self._picked:
            words += f", {len(self.picked_rows)} selected"
        unknown = unknown_settings(self.rows, self.filter)
        return words + (f"; no run has a setting or score {', '.join(unknown)}" if unknown else "")

    def _bundle(self) -> dict[str, Any]:
        """The table and the differing settings as a MIME bundle."""
        heading = f'<div style="margin-bottom:6px">{escape(self._words())}</div>'
        html = page(heading, self._table(), self._differences())
        return {"text/html": html, "text/plain": f"<{self._words()}>"}

    def _outputs(self) -> list[Any]:
        return [self._bundle(), self.figure]

    def _widget(self, changed: Callable[..., None]) -> Any:
        view = browser_side("run_browser", "figure", "shown")
        figure: Any = None

        def redraw(curves: bool) -> None:
            nonlocal figure
            if curves:
                figure = self.figure
                view.figure = "" if figure is None else json.dumps(plain(figure))
            state = {"table": self._table(answers=True), "words": self._words(), "filter": self.filter}
            view.shown = json.dumps({**state, "differences": self._differences()})

        def click(_: Any, message: dict[str, Any], __: Any) -> None:
            redraw(self.click(message))
            changed(self._bundle(), figure)

        view.on_msg(click)
        redraw(True)
        return view


def _records(path: Path) -> Records:
    """The records of a run. Of a damaged file, as much as can be read."""
    records = Records(path / "metrics.jsonl", most=MOST_STEPS)
    with contextlib.suppress(OSError, ValueError, TypeError):
        records.read()
    return records
