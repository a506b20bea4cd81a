"""Starts the runs of a sweep as processes of this machine or as tasks of a Ray cluster."""

import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from workbench.batch.sweep_plan import Planned
from workbench.errors import SettingError, reason

POLL = 0.5  # seconds


@runtime_checkable
class Handle(Protocol):
    """A started process, here or on a cluster."""

    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...


def start_here(
    command: list[str],
    planned: Planned,
    environment: Mapping[str, str] | None = None,
    folder: str | None = None,
) -> "_Process | None":
    """Start a process on this machine.

    Returns None if another process, perhaps of a killed sweep, is still working on this run.
    """
    planned.folder.mkdir(parents=True, exist_ok=True)
    with open(planned.folder / "lock", "a") as lock, open(planned.folder / "notebook.log", "ab") as log:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
        # The process inherits the lock and holds it until it ends, even if this one dies before. It has a
        # session of its own, so that Ctrl-C reaches it only through this process.
        return _Process(
            subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[lock.fileno()],
                env=environment,
                cwd=folder,
            )
        )


class _Process:
    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def poll(self) -> int | None:
        return self.process.poll()

    def terminate(self) -> None:
        self.process.terminate()


def on_ray() -> Callable[[list[str], Planned], Handle | None]:
    """Connect to Ray and return a function that starts a run as a Ray task, with a GPU if there are any.

    Raises SettingError if Ray is not installed or cannot be started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray sends usage statistics by default
    try:
        import ray
    except ImportError:
        raise SettingError(
            "ray", True, "the package ray is not installed", "pip install 'workbench[cluster]'"
        ) from None
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False)  # connects to RAY_ADDRESS, or starts a local cluster without it
        except Exception as error:  # of many kinds: a wrong address, a machine too busy to start in time
            problem = f"Ray could not be started or reached ({reason(error)})"
            remedy = "Check RAY_ADDRESS. On a busy machine, set RAY_raylet_start_wait_time_s=120."
            raise SettingError("ray", True, problem, remedy) from error

    @ray.remote(max_retries=0, num_gpus=1 if ray.cluster_resources().get("GPU") else 0)
    def task(command: list[str], planned: Planned, environment: dict[str, str], folder: str) -> None:
        # Environment and folder are those of the sweep, but the GPUs are those that Ray assigned.
        devices = {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES",) if name in os.environ}
        process = start_here(command, planned, {**environment, **devices}, folder)
        if process is None:
            return
        try:
            # A blocking wait could not be cancelled.
            while process.poll() is None:
                time.sleep(POLL)
        except BaseException:  # the task was cancelled; the notebook saves before it ends
            process.terminate()
            process.process.wait()
            raise

    return lambda command, planned: _RayTask(task.remote(command, planned, dict(os.environ), os.getcwd()))


class _RayTask:
    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def poll(self) -> int | None:
        import ray

        done, _ = ray.wait([self.reference], timeout=0)
        if not done:
            return None
        try:
            ray.get(self.reference)
        except ray.exceptions.RayError:
            return 1
        return 0  # the outcome is in the manifest

    def terminate(self) -> None:
        import ray

        ray.cancel(self.reference)
