"""One optimisation step: parameter groups, schedule, gathered negatives, gradient cache."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from workbench.errors import SettingError
from workbench.models.dual_encoder import DualEncoder
from workbench.objectives import Mixture


class Outputs(NamedTuple):
    """What a learner gives for a batch: the student's embeddings, as they are and in the teacher's width, and
    its scale."""

    image: Tensor
    text: Tensor
    projected_image: Tensor
    projected_text: Tensor
    scale: Tensor


class Targets(NamedTuple):
    """What the teacher says about a batch."""

    image: Tensor
    text: Tensor
    scale: float


class Learner(nn.Module):
    """All that learns, in one module for optimiser, process group and checkpoint: the student and the
    mixture's heads."""

    def __init__(self, student: DualEncoder, mixture: Mixture) -> None:
        super().__init__()
        self.student = student
        self.mixture = mixture

    def forward(self, images: Tensor, tokens: Tensor) -> Outputs:
        image, text = self.student.encode_image(images), self.student.encode_text(tokens)
        return Outputs(image, text, *self.mixture.project(image, text), self.student.scale)


def parameter_groups(
    module: nn.Module, weight_decay: float, multipliers: Mapping[str, float]
) -> list[dict[str, Any]]:
    """AdamW groups: no decay for biases, norms and scales (fewer than two dims); a learning-rate factor by
    module.

    `multipliers` maps a module of the student (`visual.trunk`) to a factor of the learning rate; the longest
    match counts.
    """
    groups: dict[tuple[bool, float], list[Tensor]] = {}
    unused = set(multipliers)
    for name, parameter in module.named_parameters():
        inside = name.removeprefix("student.clip.")
        matches = [prefix for prefix in multipliers if inside == prefix or inside.startswith(prefix + ".")]
        unused -= set(matches)
        factor = multipliers[max(matches, key=len)] if matches else 1.0
        if parameter.requires_grad:
            groups.setdefault((parameter.ndim >= 2, factor), []).append(parameter)
    if unused:
        raise SettingError(
            "training.lr_multipliers", sorted(unused), "the student has no such modules", "e.g. visual, text"
        )
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0, "factor": factor}
        for (decays, factor), parameters in groups.items()
    ]


def schedule(step: int, total: int, warmup: int) -> float:
    """Share of the full learning rate at `step` (from 0): linear warm-up, then half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


class _Gather(torch.autograd.Function):
    """All processes' rows, in rank order; the gradient of every process's loss comes back to the rows'
    owner."""

    @staticmethod
    def forward(context: Any, local: Tensor, sizes: Sequence[int]) -> Tensor:
        context.sizes = sizes
        padded = local.new_zeros(max(sizes), *local.shape[1:])
        padded[: len(local)] = local
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        start = sum(context.sizes[: dist.get_rank()])
        return gradient[start : start + context.sizes[dist.get_rank()]], None


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def agree(bad: bool, stop: bool, device: Any) -> tuple[bool, bool]:
    """Whether any process had a bad step or was asked to stop: they all skip and stop together."""
    if processes() == 1:
        return bad, stop
    flags = torch.tensor([float(bad), float(stop)], device=device)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags[0]), bool(flags[1])


def _sizes(local: int, device: torch.device) -> list[int]:
    mine = torch.tensor([local], device=device)
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    return [int(size) for size in everyone]


def batch_loss(
    mixture: Mixture, outputs: Outputs, targets: Targets | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss over the global batch, of which every process computes its own rows.

    Returns (what to call backward on, every term over the global batch, without gradient). With several
    processes the first is multiplied by their number, because DistributedDataParallel averages gradients
    where the sum is exact.
    """
    teacher = [targets.image, targets.text] if targets else []
    rows, world = None, processes()
    if world > 1:
        # A process that dropped an unreadable pair has fewer rows than the others.
        sizes = _sizes(len(outputs.image), outputs.image.device)
        start = sum(sizes[: dist.get_rank()])
        rows = slice(start, start + sizes[dist.get_rank()])
        teacher = [_Gather.apply(side, sizes) for side in teacher]
        outputs = Outputs(*[_Gather.apply(side, sizes) for side in outputs[:4]], outputs.scale)  # type: ignore[call-arg]
    total, terms = mixture(
        *outputs, *(teacher or (None, None)), teacher_scale=targets.scale if targets else None, rows=rows
    )
    shown = {"loss": total.detach(), **{name: value.detach() for name, value in terms.items()}}
    if world > 1:
        summed = torch.stack([value.double() for value in shown.values()])
        dist.all_reduce(summed)
        shown = dict(zip(shown, summed, strict=True))
    return total * world, shown


def backward(
    learner: nn.Module,
    mixture: Mixture,
    images: Tensor,
    tokens: Tensor,
    targets: Targets | None,
    micro_batch: int | None,
    seed: int,
) -> tuple[dict[str, Tensor], Outputs]:
    """Put the full batch's gradient into `.grad`; returns the terms and the (detached) outputs.

    With a `micro_batch` (pairs per process) below the batch this is the gradient cache (Gao et al. 2021,
    arXiv 2101.06983): embed all micro-batches without a graph, take the loss and its gradient with respect to
    the embeddings, then embed each micro-batch again with the same random numbers and pass that gradient on.
    Exact, in micro-batch memory.
    """
    parts = [
        slice(start, start + (micro_batch or len(images)))
        for start in range(0, len(images), micro_batch or len(images))
    ]
    if len(parts) == 1:
        torch.manual_seed(seed)
        outputs = learner(images, tokens)
        loss, terms = batch_loss(mixture, outputs, targets)
        loss.backward()
        return terms, Outputs(*(side.detach() for side in outputs))
    pieces = []
    for number, part in enumerate(parts):
        torch.manual_seed(seed + number)
        with torch.no_grad():
            pieces.append(learner(images[part], tokens[part]))
    whole = [torch.cat([piece[side] for piece in pieces]) for side in range(4)]
    leaves = Outputs(*(tensor.detach().requires_grad_() for tensor in (*whole, pieces[0].scale)))
    silent = getattr(
        learner, "no_sync", nullcontext
    )  # gradients stay on this process until the last backward
    with silent():
        loss, terms = batch_loss(mixture, leaves, targets)
        loss.backward()
    for number, part in enumerate(parts):
        torch.manual_seed(seed + number)
        last = part is parts[-1]
        with nullcontext() if last else silent():
            outputs = learner(images[part], tokens[part])
            shares = [None if leaf.grad is None else leaf.grad[part] for leaf in leaves[:4]] + [
                leaves.scale.grad if last else None
            ]
            used = [
                (output, share)
                for output, share in zip(outputs, shares, strict=True)
                if share is not None and output.requires_grad
            ]
            if last:
                # The process group waits for every parameter, also for those that only the loss has used.
                used += [
                    (parameter.sum() * 0, parameter.new_zeros(()))
                    for parameter in mixture.parameters(recurse=False)
                ]
            torch.autograd.backward([output for output, _ in used], [share for _, share in used])
    return terms, Outputs(*(leaf.detach() for leaf in leaves))
