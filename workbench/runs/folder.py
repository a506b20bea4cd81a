"""Run folders: their location, their recipe, and whether a process is training in them."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from workbench.errors import SettingError
from workbench.files import atomic_write, can_be_path, disk_errors_name, read_json
from workbench.recipe import Recipe, differences

SILENCE = 15.0  # seconds without an update after which a run may be dead
BEYOND = 1e12  # larger than any valid time
DIGEST = b"# sha256 of the lines below: "  # how a run's recipe begins, also where its end is lost
# The fields of status.json that other code reads, with their types.
STATUS: dict[str, tuple[type, ...]] = {
    **{"state": (str,), "step": (int,), "total_steps": (int,), "message": (str,), "skipped_steps": (int,)},
    **{"rejected": (dict,), "started": (int, float), "updated": (int, float)},
    "seconds_left": (int, float, type(None)),
}


def runs_folder(out: str | Path = "") -> Path:
    """The parent folder of runs: `out`, otherwise $WORKBENCH_RUNS, otherwise `runs` in the working folder."""
    return Path(out or os.environ.get("WORKBENCH_RUNS") or "runs")


def default_folder(recipe: Recipe, out: str | Path = "") -> Path:
    """A run's folder in `runs_folder(out)`, named after its recipe, so that the same recipe finds its run."""
    return runs_folder(out) / f"{recipe.name}-seed{recipe.seed}-{recipe.fingerprint[:8]}"


def chosen_folder(recipe: Recipe, run_dir: str | Path | None) -> Path:
    """The folder that the user has chosen for a run, else the recipe's own; raises `SettingError` for what no
    folder can be called."""
    if run_dir is None:
        return default_folder(recipe)
    if not can_be_path(os.fspath(run_dir)):
        raise SettingError(
            "run_dir", os.fspath(run_dir), "it cannot be the name of a folder", "A folder of yours."
        )
    return Path(run_dir)


def claim_folder(folder: Path, recipe: Recipe) -> None:
    """Make `folder` the run folder of `recipe`. Raises SettingError if it holds the run of another recipe.

    A run without a training step may be replaced. `data.max_failed` may change, because it decides only
    whether a run continues, not its result.
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
    write_recipe(folder, recipe)


def _has_begun(folder: Path) -> bool:
    """Whether the run in this folder has taken a step. If this is unclear, it counts as begun."""
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
    """Keep other processes from training in `folder`. The lock is released when the process ends.

    Raises SettingError if another process holds the lock, or if the folder is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "ab", buffering=0)  # noqa: SIM115, closed below
    except OSError as error:
        problem = f"this folder is not writable ({error.strerror})"
        raise SettingError("run_dir", str(folder), problem, "Choose a writable folder.") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingError(
                "run_dir",
                str(folder),
                "another process trains in it",
                "wait for it, or choose another folder",
            ) from None
        with disk_errors_name(folder):
            lock.truncate(0)
            lock.write(str(os.getpid()).encode())  # the process to signal to stop
        yield


def trained_by(folder: Path) -> int | None:
    """The id of the process that is training in `folder`, None if there is none."""
    number = (folder / "lock").read_text(errors="replace") if is_locked(folder) else ""
    return int(number) if number.isascii() and number.isdecimal() else None


def is_locked(folder: Path) -> bool:
    """Whether a process is training in `folder`, or, for a folder of a sweep, running its notebook."""
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
    """Whether a run whose status is "running" on this machine has died. False for runs of other machines."""
    updated = status.get("updated")
    last = updated if isinstance(updated, int | float) and abs(updated) < BEYOND else 0
    quiet = time.time() - last > SILENCE
    return quiet and status.get("host") == socket.gethostname() and not is_locked(folder)


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """Write the recipe of a run, with a digest by which `read_recipe` sees later changes."""
    text = recipe.to_yaml().encode()
    with atomic_write(folder / "recipe.yaml") as stream:
        stream.write(DIGEST + sha256(text).hexdigest().encode() + b"\n" + text)


def read_recipe(folder: Path, overrides: Mapping[str, object] | None = None) -> Recipe:
    """The resolved recipe of a run, with dotted `overrides`.

    Raises SettingError, naming the file, if it cannot be read, or is not what the run was trained with.
    Recipes of older runs have no digest and are not checked.
    """
    file = folder / "recipe.yaml"
    try:
        recipe = Recipe.load(str(file), overrides)
        first, _, text = file.read_bytes().partition(b"\n")
        if first.startswith(DIGEST) and first != DIGEST + sha256(text).hexdigest().encode():
            remedy = "Restore the file, or remove its first line if the change is meant."
            raise SettingError("recipe", str(file), "it was changed since the run wrote it", remedy)
        return recipe
    except SettingError as error:
        problem = f"in {file}: {error.problem}"
        raise SettingError(error.setting, error.value, problem, error.remedy) from None


def read_status(folder: Path) -> dict[str, Any]:
    """The contents of status.json: state, step, seconds left and counters; {} if there is no file yet.

    A damaged file gives the state "damaged" with a message, because the run itself is in its checkpoints, and
    its next step writes the file again.
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
            raise ValueError("its counts of rejected pairs are not numbers")
    except (OSError, ValueError) as error:
        return {"state": "damaged", "message": f"{path.name} cannot be read ({error})"}
    return status
