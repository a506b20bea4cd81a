"""All learned parts in one module, and the gradient of one batch: gathered negatives, gradient cache."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from workbench.models.dual_encoder import DualEncoder
from workbench.models.masking import encode_masked_image
from workbench.objectives import DistillationLoss
from workbench.training.gather import gathered, processes, share_sizes


class Inputs(NamedTuple):
    """The inputs of a learner for a batch: uint8 pictures (or the feature maps of frozen layers), tokens, the
    patches that masked pictures keep, and the embeddings of the captions if the text tower is frozen. `false`
    holds tokens or embeddings of hard negative captions, for the pairs that are `hard`."""

    images: Tensor
    tokens: Tensor
    kept: Tensor | None = None
    text: Tensor | None = None
    false: Tensor | None = None
    hard: Tensor | None = None

    def part(self, rows: slice) -> "Inputs":
        """The same inputs for some of the pairs."""
        return Inputs._make([None if side is None else side[rows] for side in self])


class Outputs(NamedTuple):
    """The outputs of a learner for a batch: the student's embeddings, in its own and in the teacher's width
    (`masked_image` too), those of hard negative captions, and its scale."""

    image: Tensor
    text: Tensor
    projected_image: Tensor
    projected_text: Tensor
    masked_image: Tensor | None
    false_text: Tensor | None
    scale: Tensor


class BatchTargets(NamedTuple):
    """The teachers' outputs for a batch: an image-text teacher's embeddings and scale, a language model's
    embeddings of the captions, the captions' concepts, and a cross-modal teacher's embeddings of the pairs.
    `captioned` marks the pictures with a caption, None: all. `hard` marks those with a hard negative. The
    embeddings of several image-text teachers stand side by side, and each has a scale."""

    teacher_image: Tensor | None = None
    teacher_text: Tensor | None = None
    teacher_scale: float | tuple[float, ...] | None = None
    text_target: Tensor | None = None
    soft_labels: Tensor | None = None
    cross_modal_target: Tensor | None = None
    captioned: Tensor | None = None
    hard: Tensor | None = None


class Learner(nn.Module):
    """All learned parts in one module for optimiser, process group and checkpoint: the student and the heads
    of the loss. `scale` multiplies the cosines in the losses, None: the student's own. `ema` is the decay of
    an exponential moving average of the student, None: no average."""

    def __init__(
        self,
        student: DualEncoder,
        mixture: DistillationLoss,
        scale: float | None = None,
        ema: float | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.mixture = mixture
        self.scale = scale
        self.average: AveragedModel | None = None
        if ema is not None:
            # Batch statistics are averaged too: those of the last batches do not fit averaged weights.
            self.average = AveragedModel(
                student, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True
            ).requires_grad_(False)

    @property
    def result(self) -> DualEncoder:
        """The student to validate and export: its moving average if there is one."""
        average: Any = self.average
        return self.student if average is None else average.module

    def forward(
        self,
        images: Tensor,
        tokens: Tensor,
        kept: Tensor | None = None,
        text: Tensor | None = None,
        false: Tensor | None = None,
        hard: Tensor | None = None,
    ) -> Outputs:
        if not len(images):
            # A process that could read no picture: towers cannot take an empty batch, and the others wait.
            one = [
                None if side is None else side.new_zeros(1, *side.shape[1:])
                for side in (images, tokens, kept, text, false, hard)
            ]
            *sides, scale = self(*one)
            return Outputs._make([*(None if side is None else side[:0] for side in sides), scale])
        encode = self.student.encode_maps if images.is_floating_point() else self.student.encode_image
        image = encode(images)
        if text is None:
            text = self.student.encode_text(tokens)
        masked = None
        if kept is not None:
            masked = self.mixture.image_head(encode_masked_image(self.student, images, kept))
        if false is not None and hard is not None and not false.is_floating_point():
            chosen, tokens_of = hard > 0, false
            false = text * 0  # in every process part of the graph: one without a gradient makes others wait
            if chosen.any():
                false = false.index_put((chosen,), self.student.encode_text(tokens_of[chosen]).to(text.dtype))
        scale = self.student.scale if self.scale is None else image.new_full((), self.scale)
        return Outputs(image, text, *self.mixture.project(image, text), masked, false, scale)

    @torch.no_grad()
    def after_step_(self) -> None:
        """Clamp the scales of the student and the losses to [1, 100], and update the moving average. Call it
        after each optimiser step."""
        if self.student.clip.logit_scale.requires_grad:
            self.student.clip.logit_scale.clamp_(0, math.log(100))
        self.mixture.clamp_scales_()
        if self.average is not None:
            self.average.update_parameters(self.student)


def freeze_unreached(learner: Learner, inputs: Inputs, targets: BatchTargets) -> list[str]:
    """Freeze the parameters that no objective reaches, and return their names. With several processes their
    gradients would be waited for. `inputs` and `targets` are those of a few pairs, of any values.

    Examples are the scale if feature distance is the only objective, and SigLIP's bias.
    """
    names, parameters = zip(*((n, p) for n, p in learner.named_parameters() if p.requires_grad), strict=True)
    mode = learner.training
    outputs = learner.eval()(*inputs)
    loss, _ = learner.mixture(
        outputs.image,
        outputs.text,
        outputs.projected_image,
        outputs.projected_text,
        outputs.scale,
        masked_image=outputs.masked_image,
        false_text=outputs.false_text,
        **targets._asdict(),
    )
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    learner.train(mode)
    unreached = [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]
    for name, parameter in zip(names, parameters, strict=True):
        parameter.requires_grad_(name not in unreached)
    return unreached


def batch_loss(
    mixture: DistillationLoss, outputs: Outputs, targets: BatchTargets, sizes: Sequence[int]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss over the global batch, of which every process computes its own rows. `sizes` counts the rows
    of each process.

    Returns the loss to call backward on, and every term over the global batch, without gradient. With several
    processes the loss is multiplied by their number, because DistributedDataParallel averages gradients and
    the sum is exact.
    """
    rows, ring, world = None, None, processes()
    if world > 1:
        if mixture.ring and min(sizes):
            ring = tuple(sizes)
        else:
            start = sum(sizes[: dist.get_rank()])
            rows = slice(start, start + sizes[dist.get_rank()])
            outputs = Outputs._make([*(gathered(side, sizes) for side in outputs[:-1]), outputs.scale])
            targets = BatchTargets._make([gathered(side, sizes) for side in targets])
    total, terms = mixture(
        outputs.image,
        outputs.text,
        outputs.projected_image,
        outputs.projected_text,
        outputs.scale,
        masked_image=outputs.masked_image,
        false_text=outputs.false_text,
        rows=rows,
        ring=ring,
        **targets._asdict(),
    )
    shown = {"loss": total.detach(), **{name: value.detach() for name, value in terms.items()}}
    if world > 1:
        summed = torch.stack([value.double() for value in shown.values()])
        dist.all_reduce(summed)
        shown = dict(zip(shown, summed, strict=True))
    return total * world, shown


def backward(
    learner: nn.Module,
    mixture: DistillationLoss,
    inputs: Inputs,
    targets: BatchTargets,
    micro_batch: int | None,
    seed: int,
) -> tuple[dict[str, Tensor], Outputs]:
    """Put the full batch's gradient into `.grad`. Returns the terms and the (detached) outputs.

    With a `micro_batch` (pairs per process) below the batch this is the gradient cache (Gao et al. 2021,
    arXiv 2101.06983): embed all micro-batches without a graph, compute the loss and its gradient with respect
    to the embeddings, then embed each micro-batch again with the same random numbers and backpropagate that
    gradient. Exact, in the memory of a micro-batch.
    """
    size = len(inputs.images)
    # Before other work, because a GPU with an empty queue answers at once.
    sizes = share_sizes(size, inputs.images.device)
    # A process that could read none of its pictures has one part too, an empty one.
    step = micro_batch or max(1, size)
    parts = [slice(start, start + step) for start in range(0, max(1, size), step)]
    if len(parts) == 1:
        torch.manual_seed(seed)
        outputs = learner(*inputs)
        loss, terms = batch_loss(mixture, outputs, targets, sizes)
        loss.backward()
        return terms, _detached(outputs)
    pieces = []
    for number, part in enumerate(parts):
        torch.manual_seed(seed + number)
        with torch.no_grad():
            pieces.append(learner(*inputs.part(part)))
    sides = [
        None if side[0] is None else torch.cat(side).requires_grad_()
        for side in zip(*(piece[:-1] for piece in pieces), strict=True)
    ]
    leaves = Outputs._make([*sides, pieces[0].scale.detach().requires_grad_()])
    # Gradients stay on this process until the last backward.
    silent = getattr(learner, "no_sync", nullcontext)
    with silent():
        loss, terms = batch_loss(mixture, leaves, targets, sizes)
        loss.backward()
    for number, part in enumerate(parts):
        torch.manual_seed(seed + number)
        last = part is parts[-1]
        with nullcontext() if last else silent():
            outputs = learner(*inputs.part(part))
            shares = [None if leaf is None or leaf.grad is None else leaf.grad[part] for leaf in leaves[:-1]]
            shares.append(leaves.scale.grad if last else None)
            used = [
                (output, share)
                for output, share in zip(outputs, shares, strict=True)
                if share is not None and output.requires_grad
            ]
            if last:
                # The process group waits for every parameter, including those that only the loss has used.
                used += [
                    (parameter.sum() * 0, parameter.new_zeros(())) for parameter in mixture.used_by_the_loss()
                ]
            torch.autograd.backward([output for output, _ in used], [share for _, share in used])
    return terms, _detached(leaves)


def _detached(outputs: Outputs) -> Outputs:
    return Outputs._make([None if side is None else side.detach() for side in outputs])


class Gradient(NamedTuple):
    """The gradient of one batch, stored in `.grad`, with its inputs, its outputs, every term over the global
    batch, and the gradient's norm before clipping. All tensors are on the device."""

    inputs: Inputs
    targets: BatchTargets
    outputs: Outputs
    terms: dict[str, Tensor]
    norm: Tensor

    @property
    def is_finite(self) -> Tensor:
        """Whether loss and gradient are finite."""
        return torch.isfinite(self.terms["loss"] + self.norm)
