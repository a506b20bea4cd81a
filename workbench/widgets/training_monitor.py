"""Follows a run while it trains, in any process: moving curves, and a plain figure when it ends."""

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

REFRESH = 0.5  # seconds between two pictures, at least
WORTH = 1 / 500  # of the steps drawn: fewer new ones would not be seen
LATEST = 5.0  # seconds after which new steps are drawn however few
SHARE = 0.05  # of one core's time that drawing may take from a training in the same kernel
PATIENCE = 60.0  # seconds that a run may take to write its first status
MOST_STEPS = 4_000  # that are kept of a longer run; curves have fewer points
BAR = 20  # letters of the progress bar
ENDED = ("finished", "interrupted", "failed", "gone")


class TrainingMonitor:
    """Shows how a run trains, from its folder alone: a run of this kernel, of other processes, of yesterday.

        TrainingMonitor(job).watch()          # moves, and the cell waits until the run ends
        TrainingMonitor(job)                  # as a cell's last line: moves by itself while other cells run
        with TrainingMonitor(folder):         # around a training in this kernel
            run = workbench.train(recipe, run_dir=folder)

    `source` is a Job, a Run or a run folder. A run that has ended is shown as a plain figure. With
    `live=False`, the default under `WORKBENCH_HEADLESS=1`, there is no widget, only the figure at the end.
    The picture changes at most twice a second.
    """

    def __init__(self, source: Any, live: bool | None = None) -> None:
        self.path = Path(source if isinstance(source, str | PathLike) else source.path)
        self._job = source if hasattr(source, "running") else None
        self._live = is_live(live)
        self._since = time.time()
        self._within = False  # a `with` block, in which this kernel trains
        self._view: _View | None = None
        self._leave = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> str:
        """starting, running, finished, interrupted, failed, or gone: recorded as running, but not alive."""
        return self._state(read_status(self.path))

    @property
    def figure(self) -> "go.Figure":
        """The run as it stands now, as a plain figure."""
        return _View(self).figure()

    def watch(self, timeout: float | None = None) -> None:
        """Follow the run until it ends, or for `timeout` seconds; the figure stays.

        An interrupt stops the watching and not the run, except headless, where nobody is left to stop a Job
        later: there the Job is asked to save and stop. Raises SettingError where there is no run.
        """
        if self._job is None and not (self.path / "recipe.yaml").is_file():
            remedy = "Give the folder of a run, or a Job."
            raise SettingError("run", str(self.path), "there is no run in this folder", remedy)
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
                print(f"Stopped watching; the run in {self.path} goes on.")
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
            # Waiting for an event, unlike sleeping, ends at once when a `with` block is left.
            self._leave.wait(view.refresh())

    def _state(self, status: dict[str, Any]) -> str:
        recorded = status.get("state")
        if recorded == "damaged":  # a run that goes on writes it anew
            recorded = "running" if is_locked(self.path) else "gone"
        if self._within or (self._job is not None and self._job.running):
            # Before the first step of a run that resumes, its status is still that of the last time.
            new = recorded == "running" or (recorded and status.get("updated", 0) >= self._since)
            return str(recorded) if new else "starting"
        if recorded is None:
            waiting = time.time() - self._since < PATIENCE or is_locked(self.path)
            return "starting" if self._job is None and waiting else "gone"
        if recorded == "running" and (self._job is not None or is_silent(self.path, status)):
            return "gone"
        return recorded


class _View:
    """One picture of a run: read, drawn, brought up to date."""

    def __init__(self, monitor: TrainingMonitor) -> None:
        self._monitor = monitor
        self._records = Records(monitor.path / "metrics.jsonl", most=MOST_STEPS)
        self._live: LiveFigure | None = None
        self._structure: list[tuple[str, ...]] = []
        self._steps = 0
        self._moved = 0.0

    def open(self, live: bool) -> None:
        """Show it; not `live`: not before `close`."""
        if live:
            self._live = LiveFigure(self.figure(live=True))

    def close(self) -> None:
        """Leave a plain figure of how things stand."""
        if self._live is None:
            show_plain(self.figure())
        else:
            self._live.close(self.figure())

    def figure(self, live: bool = False) -> "go.Figure":
        """How things stand; `live`: with room for what is still to come."""
        from workbench.figures.training import training_figure
        from workbench.figures.training_panels import training_panels

        self._records.read()
        self._structure = _structure(training_panels(self._records, live=live))
        self._steps, self._moved = self._records.steps, time.monotonic()
        last_step = read_status(self._monitor.path).get("total_steps")
        return training_figure(self._records, *self._words(live), live=live, last_step=last_step)

    def refresh(self) -> float:
        """Bring the live figure up to date; how many seconds to wait until the next time."""
        if self._live is None:
            return REFRESH
        began = time.thread_time()
        self._records.read()
        new = self._records.steps - self._steps
        # A slow browser, or one far away, falls behind when it is sent pictures that differ by less than a
        # pixel.
        if new < 0 or new > WORTH * self._steps or (new and time.monotonic() - self._moved > LATEST):
            self._draw(self._live)
        else:
            self._live.say(self._words(live=True)[1])
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
        # Recipe itself is not asked: the folder may be half made, or of another version.
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
    """A run's state, progress, time left, skipped steps and rejected pairs, in plotly's kind of HTML."""
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
        parts.append(f"{rejected:,} pair{'s' * (rejected > 1)} left out")
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
    """What a figure of these panels is made of, points aside."""
    axes = [(panel.title, str(panel.is_empty), panel.axis.get("type", "")) for panel in panels]
    return axes + [(panel.title, curve.name) for panel in panels for curve in panel.curves]
