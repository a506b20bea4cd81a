"""A run's folder: where it lies, whose it is, and whether a process is training in it."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench.errors import SettingError
from workbench.files import can_be_path, read_json
from workbench.recipe import Recipe, differences

SILENCE = 15.0  # seconds without a sign of life after which a run is asked whether it still lives
BEYOND = 1e12  # no time that a clock shows
# What status.json holds, as far as anybody computes with it.
STATUS: dict[str, tuple[type, ...]] = {
    **{"state": (str,), "step": (int,), "total_steps": (int,), "message": (str,), "skipped_steps": (int,)},
    **{"rejected": (dict,), "started": (int, float), "updated": (int, float)},
    "seconds_left": (int, float, type(None)),
}


def runs_folder(out: str | Path = "") -> Path:
    """The folder that runs go into: `out`, else $WORKBENCH_RUNS, else `runs` in the working folder."""
    return Path(out or os.environ.get("WORKBENCH_RUNS") or "runs")


def default_folder(recipe: Recipe, out: str | Path = "") -> Path:
    """A run's folder in `runs_folder(out)`, named by its recipe: the same recipe finds the same run again."""
    return runs_folder(out) / f"{recipe.name}-seed{recipe.seed}-{recipe.fingerprint[:8]}"


def chosen_folder(recipe: Recipe, run_dir: str | Path | None) -> Path:
    """The folder that the user has chosen for a run, else the recipe's own; raises `SettingError` for what no
    folder can be called."""
    if run_dir is None:
        return default_folder(recipe)
    if not can_be_path(os.fspath(run_dir)):
        raise SettingError("run_dir", os.fspath(run_dir), "no folder can be called so", "A folder of yours.")
    return Path(run_dir)


def claim_folder(folder: Path, recipe: Recipe) -> None:
    """Make `folder` the run folder of `recipe`; refused where another recipe's run lies.

    A run that never took a step keeps no one out, and `data.max_failed` may change: it decides whether a run
    goes on, and nothing that comes of it.
    """
    if (folder / "recipe.yaml").is_file() and _has_begun(folder):
        before = read_recipe(folder)
        changes = differences(before, recipe)
        tolerance = changes.pop("data.max_failed", None)
        if changes:
            changed = "; ".join(f"{key}: {old} there, {new} now" for key, (old, new) in changes.items())
            raise SettingError(
                "run_dir",
                str(folder),
                f"it holds a run of another recipe ({changed})",
                "choose another folder",
            )
        if tolerance is None:
            return
    recipe.save(folder / "recipe.yaml")


def _has_begun(folder: Path) -> bool:
    """Whether a run in this folder has taken a step, or cannot be told from one that has."""
    try:
        status = read_status(folder)
    except (OSError, ValueError):
        return True
    metrics = folder / "metrics.jsonl"
    return (
        bool(status.get("step"))
        or status.get("state") == "finished"
        or any((folder / "checkpoints").glob("*"))
        or any(folder.glob("evaluation/*"))
        or (metrics.is_file() and metrics.stat().st_size > 0)
    )


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training in `folder` meanwhile; the lock goes with the process, however it
    ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "a")  # noqa: SIM115, closed below
    except OSError as error:
        problem = f"nothing can be written there ({error.strerror})"
        raise SettingError("run_dir", str(folder), problem, "A folder of yours.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingError(
                "run_dir", str(folder), "another process trains in it", "wait for it, or choose another"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))  # whom to ask to stop
        lock.flush()
        yield


def trained_by(folder: Path) -> int | None:
    """The process that is training in `folder` now, if any."""
    number = (folder / "lock").read_text(errors="replace") if is_locked(folder) else ""
    return int(number) if number.isascii() and number.isdecimal() else None


def is_locked(folder: Path) -> bool:
    """Whether a process is training in `folder` now; of a sweep's, whether one is at that run."""
    try:
        with open(folder / "lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
    except FileNotFoundError:
        pass
    return False


def is_silent(folder: Path, status: Mapping[str, Any]) -> bool:
    """Whether a run that says it is running on this machine has died; of other machines only their files can
    tell."""
    updated = status.get("updated")
    last = updated if isinstance(updated, int | float) and abs(updated) < BEYOND else 0
    quiet = time.time() - last > SILENCE
    return quiet and status.get("host") == socket.gethostname() and not is_locked(folder)


def read_recipe(folder: Path) -> Recipe:
    """The resolved recipe of a run; SettingError, naming the file, where it cannot be read."""
    file = folder / "recipe.yaml"
    try:
        return Recipe.load(str(file))
    except SettingError as error:
        problem = f"in {file}: {error.problem}"
        raise SettingError(error.setting, error.value, problem, error.remedy) from None


def read_status(folder: Path) -> dict[str, Any]:
    """State, step, seconds left and what was counted; {} before the first step.

    A file that is damaged is the state "damaged" with a message: what a run has learned is in its
    checkpoints, and the next step of it writes the file anew.
    """
    path = folder / "status.json"
    try:
        status = read_json(path) if path.is_file() else {}
        if not isinstance(status, dict):
            raise ValueError("it holds no object")
        for name, kinds in STATUS.items():
            if name in status and not isinstance(status[name], kinds):
                raise ValueError(f"its {name} is {status[name]!r}")
        if not all(isinstance(count, int) for count in status.get("rejected", {}).values()):
            raise ValueError("its counts of rejected pairs are no numbers")
    except (OSError, ValueError) as error:
        return {"state": "damaged", "message": f"{path.name} cannot be read ({error})"}
    return status
