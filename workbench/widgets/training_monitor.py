"""Plots the progress of a run, live while it trains in any process and as a static figure afterwards."""

import threading
import time
from collections.abc import Callable
from html import escape
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from yaml import YAMLError

from workbench.errors import SettingError
from workbench.figures.style import GRID, state_colour
from workbench.recipe.overrides import read_yaml
from workbench.runs.folder import is_locked, is_silent, read_status
from workbench.runs.records import Records
from workbench.widgets.live import LiveFigure
from workbench.widgets.notebook import is_live, show_plain

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.figures.training_panels import Panel

REFRESH = 0.5  # seconds, the shortest time between two updates
WORTH = 1 / 500  # the smallest share of new steps that is visible in the figure
LATEST = 5.0  # seconds after which any new steps are drawn
SHARE = 0.05  # of a core's time, the most that drawing may take from a training in the same kernel
PATIENCE = 60.0  # seconds that a run may take to write its first status
MOST_STEPS = 4_000  # the most steps whose records are kept; curves have fewer points
BAR = 20  # characters of the progress bar
ENDED = ("finished", "interrupted", "failed", "gone")


class TrainingMonitor:
    """Plots the progress of a run.

        TrainingMonitor(job).watch()          # live; the cell waits until the run ends
        TrainingMonitor(job)                  # as the last line of a cell: live while other cells run
        with TrainingMonitor(folder):         # around a training in this kernel
            run = workbench.train(recipe, run_dir=folder)

    `source` is a Job, a Run or a run folder. Only the run folder is read, so the run may belong to this
    kernel, to other processes or to the past. The figure is updated at most twice a second and becomes static
    when the run ends. With `live=False`, the default under `WORKBENCH_HEADLESS=1`, only the final figure is
    shown.
    """

    def __init__(self, source: Any, live: bool | None = None) -> None:
        self.path = Path(source if isinstance(source, str | PathLike) else source.path)
        self._job = source if hasattr(source, "running") else None
        self._live = is_live(live)
        self._since = time.time()
        self._within = False  # inside a `with` block, in which this kernel trains
        self._view: _View | None = None
        self._leave = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> str:
        """One of starting, running, finished, interrupted, failed, gone (recorded as running, but dead)."""
        return self._state(read_status(self.path))

    @property
    def figure(self) -> "go.Figure":
        """The current progress as a static plotly figure."""
        return _View(self).figure()

    def watch(self, timeout: float | None = None) -> None:
        """Follow the run until it ends or `timeout` seconds have passed, and leave a static figure.

        An interrupt stops the monitor but not the run. Without live widgets nobody could stop a Job later, so
        there an interrupt makes the Job save and stop. Raises SettingError if the folder holds no run.
        """
        if self._job is None and not (self.path / "recipe.yaml").is_file():
            remedy = "Give the folder of a run, or a Job."
            raise SettingError("run", str(self.path), "this folder holds no run", remedy)
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        view = _View(self)
        try:
            try:
                view.open(self._live)
                self._follow(view, lambda: self.state in ENDED or time.monotonic() > deadline)
            finally:
                view.close()
        except KeyboardInterrupt:
            if self._live or self._job is None:
                print(f"Stopped watching; the run in {self.path} continues.")
            else:
                self._job.stop()
            raise

    def __enter__(self) -> "TrainingMonitor":
        self._within, self._since = True, time.time()
        self._leave.clear()
        self._view = _View(self)
        self._view.open(self._live)
        if self._live:
            follow = self._view, self._leave.is_set
            self._thread = threading.Thread(target=self._follow, args=follow, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave.set()
        if self._thread is not None:
            self._thread.join()
        self._within = False
        if self._view is not None:
            self._view.close()
        self._thread = self._view = None

    def _ipython_display_(self) -> None:
        view = _View(self)
        if not self._live or self.state in ENDED:
            show_plain(view.figure())
            return
        view.open(live=True)

        def until_it_ends() -> None:
            try:
                self._follow(view, lambda: self.state in ENDED)
            finally:
                view.close()

        threading.Thread(target=until_it_ends, daemon=True).start()

    def _follow(self, view: "_View", over: Callable[[], bool]) -> None:
        while not over():
            # Unlike sleeping, waiting for an event ends immediately when a `with` block is left.
            self._leave.wait(view.refresh())

    def _state(self, status: dict[str, Any]) -> str:
        recorded = status.get("state")
        if recorded == "damaged":  # a live run writes its status again
            recorded = "running" if is_locked(self.path) else "gone"
        if self._within or (self._job is not None and self._job.running):
            # Before the first step of a resumed run, the status is still that of the previous session.
            new = recorded == "running" or (recorded and status.get("updated", 0) >= self._since)
            return str(recorded) if new else "starting"
        if recorded is None:
            waiting = time.time() - self._since < PATIENCE or is_locked(self.path)
            return "starting" if self._job is None and waiting else "gone"
        if recorded == "running" and (self._job is not None or is_silent(self.path, status)):
            return "gone"
        return recorded


class _View:
    """The figure of a run: reads the records, draws them and updates the drawing."""

    def __init__(self, monitor: TrainingMonitor) -> None:
        self._monitor = monitor
        self._records = Records(monitor.path / "metrics.jsonl", most=MOST_STEPS)
        self._live: LiveFigure | None = None
        self._structure: list[tuple[str, ...]] = []
        self._steps = 0
        self._stage = ""
        self._moved = 0.0

    def open(self, live: bool) -> None:
        """Display the live figure. Without `live`, nothing is displayed before `close`."""
        if live:
            self._live = LiveFigure(self.figure(live=True), self._still())

    def close(self) -> None:
        """Display a static figure, in place of the widget if there is one."""
        if self._live is None:
            show_plain(self.figure())
        else:
            self._live.close(self.figure())

    def figure(self, live: bool = False) -> "go.Figure":
        """The current progress. With `live`, panels are reserved for validations to come."""
        from workbench.figures.training import training_figure
        from workbench.figures.training_panels import training_panels

        self._records.read()
        self._structure = _structure(training_panels(self._records, live=live))
        self._steps, self._moved = self._records.steps, time.monotonic()
        status = read_status(self._monitor.path)
        self._stage = status.get("message") or ""
        title, words = self._words(live)
        return training_figure(
            self._records,
            title,
            words,
            live=live,
            last_step=status.get("total_steps"),
            stage=escape(self._stage),
        )

    def _still(self) -> "go.Figure":
        """The current progress for a saved notebook."""
        from workbench.figures.training import training_figure

        title, words = self._words(live=False)
        return training_figure(self._records, title, words)

    def refresh(self) -> float:
        """Update the live figure, and return the number of seconds to wait before the next update."""
        if self._live is None:
            return REFRESH
        began = time.thread_time()
        self._records.read()
        new = self._records.steps - self._steps
        # Updates that differ by less than a pixel would overload a slow or remote browser.
        if new < 0 or new > WORTH * self._steps or (new and time.monotonic() - self._moved > LATEST):
            self._draw(self._live)
        elif not self._steps and read_status(self._monitor.path).get("message", "") != self._stage:
            self._live.rebuild(self.figure(live=True))  # targets are computed, for instance
        else:
            self._live.say(self._words(live=True)[1])
        if self._live.needs_copy:
            self._live.keep(self._still())
        return max(REFRESH, min(LATEST, (time.thread_time() - began) / SHARE))

    def _draw(self, live: LiveFigure) -> None:
        from workbench.figures.training_panels import training_panels

        panels = training_panels(self._records, live=True)
        if _structure(panels) == self._structure:
            live.move(panels, self._words(live=True)[1])
            self._steps, self._moved = self._records.steps, time.monotonic()
        else:
            live.rebuild(self.figure(live=True))

    def _words(self, live: bool) -> tuple[str, str]:
        path, status = self._monitor.path, read_status(self._monitor.path)
        recipe = path / "recipe.yaml"
        # Not loaded as a Recipe, because the folder may be incomplete or written by another version.
        try:
            plain = read_yaml(recipe.read_text(encoding="utf-8"))
            title = f"{plain['name']}, seed {plain.get('seed', 0)}"
        except (OSError, ValueError, KeyError, TypeError, AttributeError, YAMLError):
            title = path.name
        state = self._monitor._state(status)
        if state == "running":  # its status is written less often than its steps
            status |= {"step": max(status.get("step", 0), self._records.steps)}
        line = status_line(state, status)
        if state in ENDED:
            return escape(title), line
        remedy = "" if live else "; run this cell again to see how it goes on"
        return escape(title), f"{line} · as of {time.strftime('%Y-%m-%d %H:%M:%S')}{remedy}"


def status_line(state: str, status: dict[str, Any]) -> str:
    """A run's state, progress, time left, skipped steps and rejected pairs, in the HTML subset of plotly."""
    colour = state_colour(state)
    parts = [f'<b style="color:{colour}">{state}</b>']
    if {"step", "total_steps"} <= status.keys():
        step, total = status["step"], status["total_steps"]
        share = min(1.0, step / total) if total else 1.0
        if state == "running":
            done = int(BAR * share)
            bars = (colour, done), (GRID, BAR - done)
            parts[0] += " " + "".join(f'<span style="color:{c}">{"━" * n}</span>' for c, n in bars)
            parts[0] += f" {share:.0%}"
        parts.append(f"step {step:,} of {total:,}")
    if state == "running" and status.get("seconds_left") is not None:
        parts.append(f"{_duration(status['seconds_left'])} left")
    elif state == "finished" and {"started", "updated"} <= status.keys():
        parts.append(f"took {_duration(status['updated'] - status['started'])}")
    if skipped := status.get("skipped_steps"):
        parts.append(f"{skipped} step{'s' * (skipped > 1)} skipped (not finite)")
    if rejected := sum(status.get("rejected", {}).values()):
        parts.append(f"{rejected:,} pair{'s' * (rejected > 1)} skipped")
    if state == "gone":
        parts.append("its process ended unexpectedly; train it again to resume")
    elif status.get("message"):
        message = status["message"]
        parts.append(escape(message if len(message) <= 120 else f"{message[:119]}…"))
    return " · ".join(parts)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h {seconds % 3600 / 60:.0f} min"


def _structure(panels: list["Panel"]) -> list[tuple[str, ...]]:
    """The structure of a figure of these panels, without its points."""
    axes = [(panel.title, str(panel.is_empty), panel.axis.get("type", "")) for panel in panels]
    return axes + [(panel.title, curve.name) for panel in panels for curve in panel.curves]
