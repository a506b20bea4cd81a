"""Reports failing steps: the batch size that would have fitted, or all that is needed to replay a step."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from workbench.files import disk_errors_name, write_json

MAX_BAD_STEPS = 3


class MemoryShortage(RuntimeError):
    """A step did not fit into memory. The message names `fits`, the number of pairs that do, if any."""

    def __init__(self, batch: int, micro_batch: int | None, fits: int | None, batch_statistics: bool) -> None:
        asked = f"training.batch = {batch}" + (
            f", training.micro_batch = {micro_batch}" if micro_batch else ""
        )
        if not fits:
            advice = "not even one pair fits: choose a smaller model or picture"
        elif batch_statistics:
            # Micro-batches would change what BatchNorm computes, so the batch itself has to be smaller.
            advice = f"training.batch={fits} fits (tried just now), with fewer negatives for every pair"
        else:
            advice = f"training.micro_batch={fits} fits (tried just now) and gives the same gradient"
        super().__init__(f"out of memory with {asked}; {advice}")


@contextlib.contextmanager
def memory_shortage(recipe: Any, learner: Any, inputs: Any, share: int | None, world: int) -> Iterator[None]:
    """Turn running out of memory into MemoryShortage, with the number of pairs that fit. `share` is this
    process's micro-batch."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if recipe.training.sync_batch_norm:
            learner.eval()  # in training mode it would wait for the other processes
        fits = largest_fitting(learner, inputs, share)
        raise MemoryShortage(
            recipe.training.batch,
            recipe.training.micro_batch,
            fits and fits * world,
            learner.student.trains_batch_statistics,
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception reports exhausted memory, on a GPU or in the CPU's allocator."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error) for text in ("not enough memory", "can't allocate memory")
    )


def largest_fitting(
    learner: nn.Module,
    inputs: Any,
    micro_batch: int | None,
) -> int | None:
    """Find, by trying, the largest power-of-two share of the batch whose forward and backward pass fit. None
    if not even one pair does."""
    size = micro_batch or len(inputs.images)
    while size > 1:
        size = 1 << ((size - 1).bit_length() - 1)
        learner.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            outputs = learner(*inputs.part(slice(size)))
            sum(side.float().sum() for side in outputs if side is not None).backward()
            return size
        except Exception as error:
            if not is_out_of_memory(error):
                raise
    return None


def save_replay(
    folder: Path,
    learner: nn.Module,
    batch: Any,
    gradient: Any,
    recipe: Any,
    step: int,
) -> Path:
    """Write everything that a step depended on: weights, inputs, targets, recipe, and the resulting
    values."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.detach().cpu().contiguous().clone() for name, value in learner.state_dict().items()},
        folder / "weights.safetensors",
    )
    written = {
        **gradient.inputs._asdict(),
        **gradient.targets._asdict(),
        "rows": torch.from_numpy(batch.rows),
        "caption": torch.from_numpy(batch.caption),
    }
    tensors = {
        name: tensor.cpu().contiguous() for name, tensor in written.items() if isinstance(tensor, Tensor)
    }
    save_file(tensors, folder / "batch.safetensors")
    recipe.save(folder / "recipe.yaml")
    write_json(
        folder / "step.json",
        {"step": step, "values": {name: repr(float(value)) for name, value in gradient.terms.items()}},
    )
    return folder


class NonFiniteSteps:
    """Skips steps whose loss or gradient is not finite. Raises FloatingPointError after three in a row, with
    all that is needed to replay the last one in the run folder."""

    def __init__(self, recipe: Any, folder: Path, learner: nn.Module) -> None:
        self.recipe = recipe
        self.folder = folder
        self.learner = learner
        self.in_a_row = 0

    def may_learn(self, bad: bool, step: int, batch: Any, gradient: Any) -> bool:
        """Whether the optimiser may use this step's gradient (None: the batch was empty)."""
        if gradient is None:
            return False
        self.in_a_row = self.in_a_row + 1 if bad else 0
        if self.in_a_row == MAX_BAD_STEPS:
            where = self.folder / f"non-finite-step-{step}"
            what = f"all that is needed to replay the last is in {where}"
            try:
                with disk_errors_name(where):
                    save_replay(where, self.learner, batch, gradient, self.recipe, step)
            except OSError as error:
                what = f"what is needed to replay the last could not be written ({error})"
            raise FloatingPointError(
                f"loss or gradient was not finite in {MAX_BAD_STEPS} steps in a row; {what}"
            )
        return not bad
