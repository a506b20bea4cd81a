"""A table of runs to filter and sort; the picked ones are overlaid and their recipes compared."""

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
from workbench.runs.records import Records
from workbench.runs.run import Run
from workbench.runs.table import (
    RunRow,
    Score,
    find_runs,
    headline_scores,
    labels,
    matching,
    setting_differences,
    sorted_rows,
    unknown_settings,
)
from workbench.widgets.notebook import NotebookWidget, browser_side, is_live
from workbench.widgets.run_table_html import differences_html, page, runs_html

COLUMNS = ("name", "folder", "state", "reason", "seed", "step", "total", "updated")
MOST_STEPS = 4_000  # whose records are kept of a longer run
FIRST_DOWN = ("step", "updated")  # as any score: columns whose largest value one wants to see first


class RunBrowser(NotebookWidget):
    """The runs in a folder as a table; the curves of those picked, and the settings in which they differ.

        browser = RunBrowser("runs")
        browser                              # a cell's last line
        workbench.compare(browser.picked)    # the runs picked by hand

    `folder_or_runs` is a folder, looked through two levels deep (a sweep's folder too), or several runs or
    run folders. The filter takes words of name, folder or state, and settings (`training.lr=0.001`). Damaged
    runs are listed with a reason. Under `WORKBENCH_HEADLESS=1` there is no widget, but the plain table, and
    what is picked. Raises SettingError for a folder that does not exist.
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
        """Look through the folders anew; what was picked stays so, if it is still there."""
        self.rows = find_runs(self._source)
        self.scores = headline_scores(self.rows)
        self.choose(picked=[row.path for row in self.picked_rows])

    @property
    def shown(self) -> list[RunRow]:
        """The rows that fit the filter, in the order chosen."""
        return sorted_rows(matching(self.rows, self.filter), self.column, self.descending)

    @property
    def picked_rows(self) -> list[RunRow]:
        """The rows picked, in the order in which they were, the filtered out ones too."""
        rows = {row.path: row for row in self.rows if row.recipe is not None}
        return [rows[path] for path in self._picked if path in rows]

    @property
    def picked(self) -> list[Run]:
        """The runs picked, for `workbench.compare` and the like."""
        return [Run(row.path) for row in self.picked_rows]

    @property
    def figure(self) -> Any:
        """The curves of the runs picked, a plotly figure; None where none is."""
        from workbench.figures.training import training_figure

        rows = self.picked_rows
        if not rows:
            return None
        names = [escape(label) for label in labels(rows)]
        runs = {name: _records(row.path) for name, row in zip(names, rows, strict=True)}
        return training_figure(runs, names[0] if len(names) == 1 else f"{len(names)} runs")

    @property
    def differences(self) -> dict[str, list[Any]]:
        """{setting: its value in each run picked}, where not all agree."""
        return setting_differences([row.recipe for row in self.picked_rows if row.recipe is not None])

    def choose(
        self,
        *,
        filter: str | None = None,
        sort: str | Score | None = None,
        picked: Sequence[str | PathLike[str]] | None = None,
    ) -> None:
        """Filter, sort by a column (`"name"`, `("test", "text_to_image_r1")`; by the same again: the other
        way round) or pick run folders, in the place of those picked before. Raises SettingError for an
        unknown column."""
        self.filter = self.filter if filter is None else filter
        if sort is not None:
            if not isinstance(sort, tuple) and sort not in COLUMNS:
                remedy = f"One of {', '.join(COLUMNS)}, or a pair such as ('test', 'text_to_image_r1')."
                raise SettingError("sort", sort, "there is no such column", remedy)
            down = isinstance(sort, tuple) or sort in FIRST_DOWN
            self.descending = not self.descending if sort == self.column else down
            self.column = sort
        if picked is not None:
            self._picked = list(dict.fromkeys(map(Path, picked)))

    def click(self, message: Mapping[str, Any]) -> bool:
        """Do what a browser asks: `{"filter": text}`, `{"sort": column}`, `{"pick": folder}` (picked already:
        release it), `{"release": True}` or `{"read": True}`; returns whether curves may have changed."""
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
            words += f", {len(self.picked_rows)} picked"
        unknown = unknown_settings(self.rows, self.filter)
        return words + (f"; no run has a setting {', '.join(unknown)}" if unknown else "")

    def _bundle(self) -> dict[str, Any]:
        """Table and settings as a notebook stores them."""
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
    """What a run recorded; of a damaged file as much as can be read."""
    records = Records(path / "metrics.jsonl", most=MOST_STEPS)
    with contextlib.suppress(OSError, ValueError, TypeError):
        records.read()
    return records
