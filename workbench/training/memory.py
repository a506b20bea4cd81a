"""Estimates the GPU memory of a recipe, from its sizes and from what a few pairs keep for the gradient."""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import SettingError
from workbench.models.text_teacher_files import HUB_NAMES, locate
from workbench.objectives import DistillationLoss
from workbench.recipe import Recipe
from workbench.recipe.schema import TextTeacher
from workbench.training.learner import BatchTargets, Inputs, Learner, Outputs, batch_loss

FLOAT, HALF = 4, 2  # bytes
# Numbers per learned parameter: itself, its gradient, two moments, and one during AdamW's step.
LEARNING = 5
SAMPLE = 64  # pairs of random embeddings that measure the memory of the losses


@dataclass(frozen=True)
class GpuMemory:
    """Bytes of each process while it trains: `state` for weights, gradients and optimiser, `activations` for
    what the towers keep for the gradient, `losses` for what the losses keep."""

    state: int
    activations: int
    losses: int
    pairs: int

    @property
    def total(self) -> int:
        """The sum, without the memory of CUDA itself and of its allocator's unused blocks."""
        return self.state + self.activations + self.losses


def gpu_memory(
    recipe: Recipe, learner: Learner, inputs: Inputs, targets: BatchTargets, processes: int = 1
) -> GpuMemory:
    """The estimate for a recipe's batch, shared by `processes`, from two or more pairs of `inputs`.

    Activations grow with the pairs of a process or of its micro-batch. The matrices of losses that compare
    all with all grow with the batch times its rows in one process. The savings of
    `training.gradient_checkpointing` and `precision` are measured.
    """
    settings = recipe.training
    share = max(1, settings.batch // processes)
    pairs = min(share, max(1, settings.micro_batch // processes)) if settings.micro_batch else share
    few = len(inputs.images)

    def embed(times: int) -> int:
        repeated = Inputs._make([None if side is None else torch.cat([side] * times) for side in inputs])
        half = settings.precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return kept_for_gradient(learner, lambda: learner(*repeated))

    once, twice = embed(1), embed(2)
    slope = (twice - once) / few  # constant parts, such as weights in half precision, cancel
    constant = max(0, once - int(slope * few))
    learning = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    every = sum(item.numel() for item in (*learner.parameters(), *learner.buffers()))
    copies = LEARNING + (processes > 1)  # processes exchange gradients in separate buckets
    state = FLOAT * (every - learning + copies * learning)
    rows = min(share, settings.loss_chunk or share)
    losses = _matrices(learner.mixture, inputs, learner, targets) * rows * settings.batch
    return GpuMemory(state, int(constant + slope * pairs), int(losses), pairs)


def kept_for_gradient(module: nn.Module, forward: Callable[[], Any]) -> int:
    """Bytes that the graph of `forward` keeps, without the module's parameters and buffers."""
    own = {item.untyped_storage().data_ptr() for item in (*module.parameters(), *module.buffers())}
    storages: dict[int, int] = {}
    alive = []  # keeps the tensors, so that no address is reused

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return sum(storages.values())


def _matrices(mixture: DistillationLoss, inputs: Inputs, learner: Learner, targets: BatchTargets) -> float:
    """Bytes that the losses keep per entry of a matrix that compares all with all."""
    with torch.no_grad():
        outputs = learner(*inputs)

    def loss(count: int) -> int:
        def random(side: Any) -> Any:
            if not isinstance(side, Tensor):
                return side
            return torch.randn(count, side.shape[1]) if side.ndim == 2 else torch.ones(count)

        sides = [None if side is None else random(side).requires_grad_() for side in outputs[:-1]]
        given = BatchTargets._make([random(side) for side in targets])
        if given.soft_labels is not None:
            given = given._replace(soft_labels=given.soft_labels.softmax(1))
        drawn = Outputs._make([*sides, outputs.scale])
        return kept_for_gradient(mixture, lambda: batch_loss(mixture, drawn, given, [count]))

    chunk, mixture.chunk = mixture.chunk, None
    try:
        once, twice = loss(SAMPLE), loss(2 * SAMPLE)
    finally:
        mixture.chunk = chunk
    return max(0.0, (twice - 2 * once) / (2 * SAMPLE**2))


def language_model(settings: TextTeacher) -> tuple[int, int] | None:
    """Parameters and width of a text teacher, from its configuration alone. None if that is missing."""
    from transformers import AutoConfig, AutoModel, LlamaConfig

    config: Any = None
    with contextlib.suppress(SettingError, OSError, ValueError):
        place = Path(locate(settings.model))
        options = {"gguf_file": place.name} if place.suffix == ".gguf" else {}
        folder = str(place.parent if options else place)
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)
    if config is None and settings.model in (*HUB_NAMES, *HUB_NAMES.values()):
        config = LlamaConfig()  # whose defaults are this model
    if config is None:
        return None
    logging.disable(logging.WARNING)
    try:
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
    finally:
        logging.disable(logging.NOTSET)
    return sum(parameter.numel() for parameter in model.parameters()), int(config.hidden_size)
