"""Starts a run in separate processes, watches it and stops it. The run outlives the kernel."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from workbench.errors import SettingError
from workbench.recipe import Recipe
from workbench.recipe.teacher_checks import check_given
from workbench.runs.folder import chosen_folder, claim_folder, is_locked, trained_by
from workbench.runs.run import Run

POLL = 0.2  # seconds
_children: list[
    "subprocess.Popen[bytes]"
] = []  # kept, so that dropping a Job neither warns nor leaves a zombie


class Job:
    """A run that trains in separate processes, started by `launch` or already running."""

    def __init__(self, path: Path, process: "subprocess.Popen[bytes] | None" = None) -> None:
        self.path = path
        self._process = process

    def __repr__(self) -> str:
        return f"Job({str(self.path)!r}, {'running' if self.running else self.run.status.get('state')})"

    @property
    def run(self) -> Run:
        """The run folder, readable at any time."""
        return Run(self.path)

    @property
    def running(self) -> bool:
        """Whether it is still training."""
        return self._process.poll() is None if self._process is not None else is_locked(self.path)

    @property
    def log(self) -> str:
        """The output of its processes."""
        path = self.path / "train.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    @property
    def failed(self) -> bool:
        """Whether it ended on its own before it was finished."""
        if self.running:
            return False
        if self.run.status.get("state") not in ("finished", "interrupted"):
            return True
        # The status may be that of an earlier session, if this one failed before its first step.
        stopped = (0, 128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
        return self._process is not None and self._process.returncode not in stopped

    def wait(self) -> Run:
        """Wait for the end and return the run. Raises RuntimeError with the end of the log if it failed.

        The run continues if the wait is interrupted, unless nobody is watching (`is_unattended`): then it
        saves and stops.
        """
        try:
            while self.running:
                time.sleep(POLL)
        except KeyboardInterrupt:
            from workbench.figures.display import is_unattended  # brings plotly

            if is_unattended():
                self.stop()
            else:
                print(f"the run goes on in {self.path}; `.wait()` again to wait, `.stop()` to stop it")
            raise
        if self.failed:
            raise RuntimeError(f"the run in {self.path} failed; the end of its log:\n{self.log[-3000:]}")
        return self.run

    def stop(self) -> Run:
        """Ask it to save and stop, wait for that, and return the run. Launching it again resumes it."""
        number = self._process.pid if self._process is not None else trained_by(self.path)
        if self.running and number:
            os.kill(number, signal.SIGTERM)
        while self.running:
            time.sleep(POLL)
        return self.run


def launch(recipe: Recipe, processes: int = 1, run_dir: str | Path | None = None) -> Job:
    """Start or resume the run of a recipe in `processes` processes of this machine, or attach to it.

    Several processes are started with torchrun and train together, one per GPU if there are GPUs. Their
    output goes to `train.log` in the run folder. Raises SettingError if `processes` is less than 1, and
    for a teacher that is an object of this process.
    """
    if processes < 1:
        raise SettingError("processes", processes, "at least one is needed", "1, or the number of GPUs")
    check_given(recipe)
    folder = chosen_folder(recipe, run_dir).absolute()
    claim_folder(folder, recipe)
    if is_locked(folder):
        return Job(folder)
    several = ["--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    command = [sys.executable, *_training(folder, several)]
    with open(folder / "train.log", "ab") as log:
        # A new session, so that an interrupt or the end of the kernel does not reach the run.
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    _children.append(process)
    return Job(folder, process)


def node_command(recipe: Recipe, nodes: int, processes: int = 1, run_dir: str | Path | None = None) -> str:
    """The command that each of several machines runs to train a recipe together, with `processes` on each.

    The run folder, which is created here, and the cache must be on a disk that all machines share. Replace
    `HOST` in the command by the name of one of them.
    """
    check_given(recipe)
    folder = chosen_folder(recipe, run_dir).absolute()
    claim_folder(folder, recipe)
    meeting = ["--rdzv_backend", "c10d", "--rdzv_endpoint", "HOST:29500", "--rdzv_id", folder.name]
    several = ["--nnodes", str(nodes), "--nproc_per_node", str(processes), *meeting]
    return shlex.join(["python", *_training(folder, several)])


def _training(folder: Path, several: list[str]) -> list[str]:
    """The arguments of Python for training in a run folder, with those of torchrun for `several`
    processes."""
    started_by = ["-m", "torch.distributed.run", *several] if several else []
    return [*started_by, "-m", "workbench", "train", str(folder / "recipe.yaml"), "--run-dir", str(folder)]
