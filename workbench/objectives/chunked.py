"""Matching and ranking losses over large batches, a chunk of the queries at a time."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench.objectives.similarity import Embeddings, Loss, Scale


class Side(NamedTuple):
    """Unit embeddings of queries and keys, and what multiplies their cosine similarities."""

    query: Tensor
    key: Tensor
    scale: Tensor

    def logits(self, start: int, chunk: int) -> Tensor:
        """Those of `chunk` queries from `start`, with all keys."""
        return (self.query[start : start + chunk] * self.scale) @ self.key.T


def chunked_matching(
    query: Embeddings, key: Embeddings, scale: Scale, chunk: int, *, first: int = 0, both: bool = False
) -> Loss:
    """Sum over unit queries of the cross-entropy against the key of number `first` + n; with `both`, plus the
    same sum with queries and keys exchanged.

    Holds O(chunk x keys) numbers beside the embeddings. The gradient is taken in the forward pass, while the
    logits are at hand; none of second order.
    """
    return _Chunked.apply(query, key, _tensor(scale, query), None, None, None, chunk, first, both)


def chunked_divergence(
    student: tuple[Embeddings, Embeddings, Scale],
    teacher: tuple[Embeddings, Embeddings, Scale],
    chunk: int,
    *,
    both: bool = False,
) -> Loss:
    """Sum over the queries of KL(softmax of the teacher's logits || softmax of the student's), likewise.

    Each side is (unit queries, unit keys, scale); the teacher gets a gradient where it asks for one.
    """
    sides = [(query, key, _tensor(scale, query)) for query, key, scale in (student, teacher)]
    return _Chunked.apply(*sides[0], *sides[1], chunk, 0, both)


def check_chunk(objective: str, chunk: int | None) -> None:
    """ValueError unless `chunk` is None or at least 1."""
    if chunk is not None and chunk < 1:
        raise ValueError(
            f"{objective}: chunk = {chunk}, give the number of rows at a time, 1 or more, or None"
        )


def _tensor(scale: Scale, like: Tensor) -> Tensor:
    return torch.as_tensor(scale).to(like.device, like.dtype)


class _Chunked(torch.autograd.Function):
    """Queries against keys; the targets are the partners, or a teacher's softmax.

    The gradient with respect to the logits is p - y, or p - p_teacher; for the teacher's own logits
    p_teacher (log p_teacher - log p - KL). A chunk of rows holds all of it but the normalisers of columns,
    which a first pass finds.
    """

    @staticmethod
    def forward(context: Any, *arguments: Any) -> Tensor:
        *tensors, chunk, first, both = arguments
        sides = [Side(*tensors[:3])] + ([] if tensors[3] is None else [Side(*tensors[3:])])
        needed = context.needs_input_grad
        asked = [any(needed[:3]), any(needed[3:6])][: len(sides)]
        with torch.autocast(tensors[0].device.type, enabled=False):
            columns = _Columns.of(sides, chunk, asked[-1]) if both else None
            gradients = [[torch.zeros_like(each) for each in side] for side in sides]
            loss = tensors[0].new_zeros(())
            for start in range(0, len(tensors[0]), chunk):
                logits = [side.logits(start, chunk) for side in sides]
                norms = [each.logsumexp(1, keepdim=True) for each in logits]
                share, slopes = _slopes(logits, norms, start + first)
                loss += share
                if columns is not None:
                    share, others = _slopes(logits, columns.norms, start, columns.divergence)
                    loss += share
                    slopes = [slope.add_(other) for slope, other in zip(slopes, others, strict=True)]
                    del others
                del logits
                for side, gradient, slope, wanted in zip(sides, gradients, slopes, asked, strict=True):
                    if wanted:
                        query = side.query[start : start + chunk]
                        pull = slope @ side.key
                        gradient[0][start : start + chunk] = pull * side.scale
                        gradient[1].addmm_(slope.T, query * side.scale)
                        gradient[2] += (pull * query).sum()
        context.save_for_backward(*[each for gradient in gradients for each in gradient])
        return loss

    @staticmethod
    @once_differentiable
    def backward(context: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        needed = context.needs_input_grad
        given = [
            upstream * each if wanted else None
            for each, wanted in zip(context.saved_tensors, needed, strict=False)
        ]
        return (*given, *[None] * (9 - len(given)))


class _Columns(NamedTuple):
    """What a chunk of rows cannot know of its columns: normalisers [1, keys] of each side, KL [1, keys]."""

    norms: list[Tensor]
    divergence: Tensor | None

    @classmethod
    def of(cls, sides: list[Side], chunk: int, with_divergence: bool) -> "_Columns":
        starts = range(0, len(sides[0].query), chunk)
        norms = []
        for side in sides:
            total = side.key.new_full((len(side.key),), -torch.inf)
            for start in starts:
                total = torch.logaddexp(total, side.logits(start, chunk).logsumexp(0))
            norms.append(total[None])
        if len(sides) == 1 or not with_divergence:
            return cls(norms, None)
        divergence = torch.zeros_like(norms[0])
        for start in starts:
            student, teacher = (
                side.logits(start, chunk) - norm for side, norm in zip(sides, norms, strict=True)
            )
            divergence += (teacher.exp() * (teacher - student)).sum(0, keepdim=True)
        return cls(norms, divergence)


def _slopes(
    logits: list[Tensor], norms: list[Tensor], first: int, divergence: Tensor | None = None
) -> tuple[Tensor, list[Tensor]]:
    """The loss of a chunk of logits, and its gradient with respect to them and to the teacher's.

    `norms` are the logarithms of the softmax's denominators, by row or by column; `divergence` the KL of
    each column, where it is not that of the chunk's rows.
    """
    student = logits[0] - norms[0]
    if len(logits) == 1:
        loss = -student.diagonal(first).sum()
        slope = student.exp_()
        slope.diagonal(first).sub_(1)
        return loss, [slope]
    teacher = logits[1] - norms[1]
    gap = teacher - student
    target = teacher.exp_()
    weighted = gap * target
    if divergence is None:
        divergence = weighted.sum(1, keepdim=True)
    return weighted.sum(), [student.exp_().sub_(target), weighted.sub_(target * divergence)]
