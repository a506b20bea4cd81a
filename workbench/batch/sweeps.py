"""Runs a sweep: one executed notebook per run in a process of its own, resumable, several at a time."""

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workbench.batch.launchers import POLL, Handle, on_ray, start_here
from workbench.batch.notebook_runner import checked, locate
from workbench.batch.sweep_plan import Planned, load_sweep, plan
from workbench.errors import SettingError
from workbench.files import atomic_write, read_json, signed, write_json
from workbench.runs.folder import is_locked, read_status

LINE_EVERY = 30.0  # seconds between two lines of progress


@dataclass(frozen=True)
class Outcome:
    """The state of a run of a sweep: "finished", "failed", "interrupted" or "missing", with the reason."""

    planned: Planned
    state: str
    reason: str = ""


def run_sweep(
    path: str | Path,
    out: str | Path | None = None,
    *,
    at_once: int = 1,
    again: bool = False,
    ray: bool = False,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Run the unfinished runs of the sweep in a YAML file, and return the outcome of every run.

    `out` (default `sweeps/NAME`) receives a folder per run, with the executed notebook, its manifest, its log
    and the run folder. Finished runs are skipped, failed ones are repeated only with `again`, and all others
    resume. `at_once` runs go at the same time, on this machine or, with `ray`, on the cluster of RAY_ADDRESS
    (without it, a local one). The cluster's machines need this Python and the same path of `out`. Ctrl-C lets
    running notebooks save.
    """
    from workbench.reports.effects import ORDER

    if at_once < 1:
        raise SettingError("at_once", at_once, "at least one run must be active", "Use 1 or more.")
    folder = Path(out) if out is not None else Path("sweeps") / Path(path).stem
    if folder.exists() and not folder.is_dir():
        raise SettingError("out", str(folder), "it is a file", "Give a folder, new or existing.")
    sweep = load_sweep(path)
    runs = plan(sweep, folder)
    notebook = locate(sweep.notebook)
    for planned in runs:
        checked(notebook, planned.parameters())
    waiting = []
    for planned in runs:
        outcome = outcome_of(planned)
        if outcome.state == "failed" and not again:
            say(f"{planned.name}: failed before ({outcome.reason}); use --again to repeat it")
        elif outcome.state != "finished":
            waiting.append(planned)
    write_json(folder / ORDER, signed({"runs": [planned.name for planned in runs]}))
    say(f"{len(runs)} runs in {folder}: {len(runs) - len(waiting)} done, {len(waiting)} to do")
    start = on_ray() if ray and waiting else start_here
    _run(waiting, runs, str(notebook), start, at_once, say)
    return [outcome_of(planned) for planned in runs]


def outcome_of(planned: Planned) -> Outcome:
    """The outcome recorded in a run's manifest. Raises SettingError if it belongs to other parameters."""
    path = planned.folder / "manifest.json"
    if not path.is_file():
        return Outcome(planned, "missing", _last_words(planned.folder / "notebook.log"))
    try:
        manifest = read_json(path)
        state, parameters, error = manifest["state"], dict(manifest["parameters"]), manifest["error"] or {}
        reason = str(error.get("message", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Outcome(planned, "interrupted", f"{path.name} is damaged")
    parameters_now = json.loads(json.dumps(planned.parameters()))
    parameters_then = {name: parameters.get(name) for name in parameters_now}
    if {**parameters_then, "run_dir": None} != {**parameters_now, "run_dir": None}:
        raise SettingError(
            "out", str(planned.folder), "it holds a run with other settings", "Choose another folder."
        )
    if state == "running":
        if is_locked(planned.folder):
            return Outcome(planned, "interrupted", "another process is running it")
        return Outcome(planned, "interrupted", "killed")
    return Outcome(planned, state, _in_one_line(reason))


def _in_one_line(reason: str) -> str:
    """The error line of a message or log, otherwise its last line."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(\w+\.)*\w*(error|Error|Exception)\b.*: ", line)]
    return (errors or lines or [""])[-1]


def _last_words(log: Path) -> str:
    """The last error in the log of a process that ended without a manifest."""
    try:
        return _in_one_line(log.read_text(encoding="utf-8", errors="replace")[-3000:])
    except OSError:
        return ""


def _run(
    waiting: list[Planned],
    runs: list[Planned],
    notebook: str,
    start: Callable[[list[str], Planned], Handle | None],
    at_once: int,
    say: Callable[[str], None],
) -> None:
    """Keep `at_once` of the waiting runs active until all are done."""
    todo, running = list(waiting), dict[str, tuple[Planned, Handle]]()
    began = last_line = time.monotonic()
    done_before = len(runs) - len(waiting)
    try:
        while todo or running:
            for name, (planned, handle) in list(running.items()):
                if handle.poll() is not None:
                    del running[name]
                    outcome = outcome_of(planned)
                    say(f"{name}: {outcome.state}{f' ({outcome.reason})' if outcome.reason else ''}")
            while todo and len(running) < at_once:
                planned = todo.pop(0)
                process = start(_command(planned, notebook), planned)
                if process is None:
                    say(f"{planned.name}: another process is running it")
                else:
                    running[planned.name] = (planned, process)
            if time.monotonic() - last_line > LINE_EVERY:
                last_line = time.monotonic()
                say(_progress(len(waiting), todo, running, done_before, last_line - began))
            time.sleep(POLL)
    except BaseException:
        for _, handle in running.values():
            handle.terminate()
        say(f"stopping {len(running)} running: {', '.join(running) or 'none'}")
        while any(handle.poll() is None for _, handle in running.values()):
            time.sleep(POLL)
        raise


def _command(planned: Planned, notebook: str) -> list[str]:
    parameters = [f"{name}={_text(value)}" for name, value in planned.parameters().items()]
    options = [part for parameter in parameters for part in ("-p", parameter)]
    return [sys.executable, "-m", "workbench", "notebook", notebook, *options, "--out", str(planned.folder)]


def _text(value: object) -> str:
    # The command reads it as YAML, which does not join the two \\u escapes of a surrogate pair.
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _progress(
    total: int, todo: list[Planned], running: dict[str, tuple[Planned, Handle]], before: int, seconds: float
) -> str:
    shares = {name: _share(planned) for name, (planned, _) in running.items()}
    done = total - len(todo) - sum(1 - share for share in shares.values())
    left = f", about {seconds / done * (total - done) / 60:.0f} min left" if done > 0.2 else ""
    active = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    return f"{before + total - len(todo) - len(running)} of {before + total} done; {active}{left}"


def _share(planned: Planned) -> float:
    """The share of a run's training that is done."""
    try:
        status = read_status(planned.run_dir)
        return float(status["step"]) / float(status["total_steps"])
    except (OSError, ValueError, KeyError, ZeroDivisionError):
        return 0.0


def write_table(outcomes: list[Outcome], folder: Path) -> Path | None:
    """Compare the finished runs and write `comparison.txt`, `comparison.json` and `report.html`.

    Returns the path of the text, or None if no run is finished. Runs whose folders were removed are skipped.
    If no seed of the baseline is finished, the next group becomes the baseline. The text notes both.
    """
    from workbench.reports.compare import compare
    from workbench.reports.html import write_report
    from workbench.runs.run import Run

    finished = [outcome.planned for outcome in outcomes if outcome.state == "finished"]
    kept = [planned for planned in finished if (planned.run_dir / "recipe.yaml").is_file()]
    if not kept:
        return None
    runs = [Run(planned.run_dir) for planned in kept]
    comparison = compare(runs)
    notes = [f"{planned.name}: its run folder does not exist" for planned in finished if planned not in kept]
    first = outcomes[0].planned
    if not any((outcome.recipe, outcome.overrides) == (first.recipe, first.overrides) for outcome in kept):
        notes.append(f"the sweep's baseline {first.name} is not finished, so the baseline is {kept[0].name}")
    for name, text in (
        ("comparison.txt", "\n".join([str(comparison), *notes])),
        ("comparison.json", comparison.to_json()),
    ):
        with atomic_write(folder / name, "w") as stream:
            stream.write(text + "\n")
    write_report(runs, folder / "report.html")
    return folder / "comparison.txt"
