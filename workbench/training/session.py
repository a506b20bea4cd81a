"""One process's part in a run: lock, device, log, signals, checkpoints, and the final status."""

import atexit
import contextlib
import os
import platform
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from workbench.errors import SettingError, damaged_file
from workbench.files import read_json, signed, unsigned, write_json
from workbench.models.devices import device_of
from workbench.recipe import Recipe
from workbench.runs import checkpoint
from workbench.runs.folder import chosen_folder, claim_folder, locked
from workbench.runs.logger import RunLogger, before_first_step
from workbench.runs.run import Run
from workbench.runs.tracker import Tracker, check_tracker
from workbench.targets.cached import say_at_once
from workbench.training.gather import leave_group

MOST_UNSAVED = 3  # consecutive checkpoints that may fail to be written, e.g. on a full disk
PACKAGES = (
    *("workbench", "torch", "torchvision", "open_clip_torch"),
    *("timm", "transformers", "accelerate", "numpy"),
)


class Session:
    """A context in which one process trains a recipe in a run folder, alone or with others.

    Entering it locks and claims the folder; SettingError if that is impossible. `start` opens the log. From
    then on, leaving the context writes the run's final state: finished, interrupted or failed. With a
    `device` the session belongs to this process alone, even if several train together.
    """

    def __init__(self, recipe: Recipe, run_dir: str | Path | None, *, device: Any = None) -> None:
        self.recipe = recipe
        self.folder = chosen_folder(recipe, run_dir)
        check_tracker(recipe)
        if recipe.training.threads:
            torch.set_num_threads(recipe.training.threads)
        self.accelerator: Any = accelerate_on(recipe) if device is None else None
        self.device = self.accelerator.device if self.accelerator else torch.device(device)
        self.rank = self.accelerator.process_index if self.accelerator else 0
        self.world = self.accelerator.num_processes if self.accelerator else 1
        self.main = self.rank == 0
        self.logger: RunLogger | None = None
        self.ended_early: str | None = None  # why the run is finished before its last step
        self._stack = contextlib.ExitStack()
        self._request = StopRequest()
        self._unsaved = 0
        self._spoke = False  # `say` has written into the status

    def __enter__(self) -> "Session":
        with contextlib.ExitStack() as stack:
            if self.main:
                stack.enter_context(locked(self.folder))
                claim_folder(self.folder, self.recipe)
            self.wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if self.logger is not None:
                state, message = self._outcome(error)
                self.logger.status(state, message)
                self.logger.close()
            elif self._spoke and error is not None:  # while targets were filled
                before_first_step(self.folder, *_failure(error))
            if error is None:
                self.wait()

    @property
    def run(self) -> Run:
        """The run in this folder."""
        return Run(self.folder)

    @property
    def finished(self) -> bool:
        """Whether the run has already been trained to its end, with an undamaged result."""
        return self.run.finished

    @property
    def share(self) -> dict[str, Any]:
        """The facts about this process that functions that compute targets need."""
        return {"device": self.device, "rank": self.rank, "world": self.world, "say": self.say}

    def say(self, text: str) -> None:
        """Print a line about the work before the first step, and show it in monitors."""
        say_at_once(text)
        if self.main:
            self._spoke = True
            before_first_step(self.folder, text)

    def gpu_memory(self) -> dict[str, float]:
        """The most GPU memory of this process so far, in GiB; nothing without a GPU."""
        if self.device.type != "cuda":
            return {}
        return {"gpu_memory": torch.cuda.max_memory_allocated(self.device) / 2**30}

    def wait(self) -> None:
        """Wait for all processes."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def prepare(self, *parts: Any) -> Any:
        """Move models and optimisers to the device, and connect them with those of the other processes."""
        return self.accelerator.prepare(*parts)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """A context with the recipe's precision."""
        return self.accelerator.autocast()

    def resume(self, module: nn.Module, optimiser: Any) -> checkpoint.Checkpoint | None:
        """Load the last checkpoint of this run into both. Returns None if there is none yet."""
        saved = checkpoint.load_latest(self.folder / "checkpoints")
        if saved is not None:
            module.load_state_dict(saved.tensors)
            optimiser.load_state_dict(saved.optimiser)
        return saved

    def start(self, total: int, step: int) -> RunLogger:
        """Open the log at `step`. From now on Ctrl-C and SIGTERM are requests to stop."""
        tracker = Tracker(self.recipe, self.folder) if self.main and self.recipe.training.track else None
        self.logger = RunLogger(self.folder, total, self.main, tracker)
        self.logger.start(step)
        self._request = self._stack.enter_context(stop_on_signal())
        if self.main:
            write_json(self.folder / "versions.json", signed(versions(str(self.device))))
        return self.logger

    def write_weights(self, student: str | None, teacher: str | None, given: str | None = None) -> None:
        """Write weights.json at the start of a run: the sources of the student's and the teachers' weights,
        null if random, and the fingerprint of a teacher that was `given` as an object."""
        sources = {"student": student, "teacher": teacher} | ({"object": given} if given else {})
        if self.main:
            write_json(self.folder / "weights.json", signed(self._weights or sources))

    @property
    def teacher_object(self) -> str | None:
        """The fingerprint of the object that has taught this run so far, None if there is no checkpoint."""
        return self._weights.get("object")

    @property
    def _weights(self) -> dict[str, Any]:
        """What weights.json has of the run so far, {} if there is no checkpoint."""
        file = self.folder / "weights.json"
        try:
            return {**unsigned(read_json(file))} if self._begun and file.is_file() else {}
        except (OSError, ValueError, TypeError) as error:
            raise damaged_file("run_dir", file, error, "Restore it, or choose another folder.") from None

    @property
    def _begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return (self.folder / "checkpoints" / checkpoint.POINTER).is_file()

    @property
    def stop_requested(self) -> bool:
        """Whether this process was asked to stop."""
        return bool(self._request)

    def read(self, values: Mapping[str, Tensor], good: Tensor | bool) -> tuple[dict[str, float], bool, bool]:
        """The values of a step as numbers, whether the step is not `good` in any process, and whether any
        process was asked to stop. This is the only time in a step that the CPU waits for the device."""
        kind = torch.float32 if self.device.type == "mps" else torch.float64
        flags = torch.zeros(2, dtype=kind, device=self.device)
        flags[0] = torch.as_tensor(good).logical_not()
        flags[1].fill_(self.stop_requested)
        if self.world > 1:
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        measured = [value.to(kind) for value in values.values()]
        bad, stopping, *numbers = torch.stack([*flags, *measured]).tolist()
        return dict(zip(values, numbers, strict=True)), bool(bad), bool(stopping)

    def save(
        self,
        step: int,
        module: nn.Module,
        optimiser: Any,
        state: Mapping[str, Any],
        *,
        keep: Any = None,
        last: bool,
    ) -> None:
        """Write a checkpoint. A failure is a warning, but a CheckpointError for the `last` checkpoint and for
        the third failure in a row."""
        if not self.main:
            return
        try:
            tensors, moments = module.state_dict(), optimiser.state_dict()
            keep = keep or self.recipe.training.keep
            checkpoint.save(self.folder / "checkpoints", step, tensors, moments, dict(state), keep=keep)
            self._unsaved = 0
        except checkpoint.CheckpointError as error:
            self._unsaved += 1
            assert self.logger is not None
            self.logger.info(f"warning: {error}; the last good checkpoint stays")
            if last or self._unsaved == MOST_UNSAVED:
                raise

    def _outcome(self, error: BaseException | None) -> tuple[str, str]:
        assert self.logger is not None
        if error is not None:
            message, state = _failure(error)
            return state, message
        if self.ended_early or self.logger.step == self.logger.total_steps:
            return "finished", self.ended_early or ""
        if self._request.signal is None:
            return "interrupted", ""
        name = signal.Signals(self._request.signal).name
        return "interrupted", f"stopped by {name}; the same call goes on from here"


def _failure(error: BaseException) -> tuple[str, str]:
    state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
    return f"{type(error).__name__}: {error}", state


class StopRequest:
    """The signal that asked to stop, if any."""

    signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Record SIGINT and SIGTERM instead of ending the process. A second signal interrupts at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers; in other threads the caller's handlers stay in force.
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request:
            raise KeyboardInterrupt
        request.signal = number

    before: dict[int, Callable[..., Any] | int | None] = {
        number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def versions(device: str) -> dict[str, str]:
    """Versions of everything that a result depends on; "absent" for a package that is not installed."""
    known = {"python": platform.python_version(), "platform": platform.platform(), "device": device}
    if device.startswith("cuda"):
        known["device_name"] = torch.cuda.get_device_name(device)
    for package in PACKAGES:
        try:
            known[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            known[package] = "absent"
    return known


def accelerate_on(recipe: Recipe) -> Any:
    """The Accelerator for a recipe's device and precision, in one of the processes that torchrun started."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    # A notebook trains several recipes in one process, and accelerate would refuse a second precision.
    AcceleratorState._reset_state(reset_partial_state=not dist.is_initialized())
    precision = "bf16" if recipe.training.precision == "bfloat16" else "no"
    device_of(recipe)  # refuses a missing GPU
    # By default, accelerate lets several processes without GPUs train separately.
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()
    on_cpu = recipe.training.device == "cpu" or (recipe.training.device == "auto" and several)
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=precision)
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        problem = "every process trains the whole student (DistributedDataParallel)"
        remedy = "torchrun, or `workbench train --processes N`"
        raise SettingError("accelerate", str(accelerator.distributed_type), problem, remedy)
    atexit.register(leave_group)
    return accelerator
