"""Matching and divergence losses over large batches, computed on a chunk of the queries at a time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench.objectives.chunked_kernel import (
    Gradient,
    Plan,
    Side,
    run_chunks,
)
from workbench.objectives.forward_gradients import save_gradients, saved_gradients
from workbench.objectives.ring import ring_mixture
from workbench.objectives.similarity import Embeddings, Loss, Scale, check_batch, check_width, common_dtype

Embedded = tuple[Embeddings, Embeddings, Scale]  # queries, keys, multiplier of their cosine similarities


def chunked_matching(
    query: Embeddings,
    key: Embeddings,
    scale: Scale,
    chunk: int,
    rows: slice | None = None,
    *,
    both: bool = False,
) -> Loss:
    """Sum of the cross-entropy of each query in `rows` (None: all) against its key, the one of the same
    index; with `both`, plus the same sum with queries and keys exchanged.

    Queries and keys are [batch, dim] of any norm. Needs O(chunk x batch) memory besides the embeddings. The
    gradient is computed in the forward pass, while the logits exist, so there is no second-order gradient.
    """
    return _summed((query, key, scale), None, (1.0, 0.0), chunk, rows, both)[0]


def chunked_divergence(
    student: Embedded, teacher: Embedded, chunk: int, rows: slice | None = None, *, both: bool = False
) -> Loss:
    """Sum over the queries of KL(softmax of the teacher's logits || softmax of the student's), likewise.

    The teacher receives a gradient if it requires one.
    """
    return _summed(student, teacher, (0.0, 1.0), chunk, rows, both)[0]


def chunked_mixture(
    student: Embedded,
    teacher: Embedded,
    weights: tuple[float, float],
    chunk: int,
    rows: slice | None = None,
    *,
    both: bool = False,
) -> tuple[Loss, Loss, Loss]:
    """The weighted sum of the student's matching and its divergence from the teacher, at the cost of the
    latter.

    Returns the weighted sum and, without gradient, the matching and the divergence.
    """
    return _summed(student, teacher, weights, chunk, rows, both)


def contrastive_and_relational(
    student_image: Embeddings,
    student_text: Embeddings,
    teacher_image: Embeddings,
    teacher_text: Embeddings,
    student_scale: Scale,
    teacher_scale: Scale,
    weights: tuple[float, float],
    *,
    rows: slice | None = None,
    chunk: int | None,
    ring: Sequence[int] | None = None,
) -> tuple[Loss, Loss, Loss]:
    """Weighted sum of `contrastive_loss` and `relational_distillation`, in the time and memory of the latter.

    `weights` are those of the two losses, and the other arguments are theirs. Returns the weighted sum and,
    without gradient, the task loss and CRD. Raises ValueError like the two losses.
    """
    batch = check_batch(
        "contrastive_and_relational",
        student_image=student_image,
        student_text=student_text,
        teacher_image=teacher_image,
        teacher_text=teacher_text,
    )
    check_width("contrastive_and_relational", student_image=student_image, student_text=student_text)
    check_width("contrastive_and_relational", teacher_image=teacher_image, teacher_text=teacher_text)
    check_chunk("contrastive_and_relational", chunk)
    student = (student_image, student_text, student_scale)
    teacher = (teacher_image, teacher_text, teacher_scale)
    if ring:
        batch = sum(ring)
        weighted, task, crd = ring_mixture(student, teacher, weights, ring, chunk, both=True)
    else:
        assert chunk is not None
        weighted, task, crd = chunked_mixture(student, teacher, weights, chunk, rows, both=True)
    return weighted / (2 * batch), task / (2 * batch), crd / (2 * batch)


def check_chunk(objective: str, chunk: int | None) -> None:
    """Raise ValueError unless `chunk` is None or a whole number of at least 1."""
    if chunk is not None and (not isinstance(chunk, int) or isinstance(chunk, bool) or chunk < 1):
        raise ValueError(
            f"{objective}: chunk = {chunk}, give the number of rows at a time, 1 or more, or None"
        )


def _summed(
    student: Embedded,
    teacher: Embedded | None,
    weights: tuple[float, float],
    chunk: int,
    rows: slice | None,
    both: bool,
) -> tuple[Loss, Loss, Loss]:
    sides = [student] if teacher is None else [student, teacher]
    if both and rows is not None:  # queries and keys of a share are not the same pairs
        turned = [(key, query, scale) for query, key, scale in sides]
        ways = [_directed(direction, weights, chunk, rows, False) for direction in (sides, turned)]
        return tuple(sum(way) for way in zip(*ways, strict=True))
    return _directed(sides, weights, chunk, rows, both)


def _directed(
    sides: list[Embedded], weights: tuple[float, float], chunk: int, rows: slice | None, both: bool
) -> tuple[Loss, Loss, Loss]:
    chosen = range(len(sides[0][0]))[rows or slice(None)]
    plan = Plan(chunk, chosen.start, both, *weights)
    flat = []
    for query, key, scale in sides:
        number = torch.as_tensor(scale, device=query.device)
        flat += [query[chosen.start : chosen.stop], key, number]
    return _Chunked.apply(*flat, *[None] * (6 - len(flat)), plan)


class _Chunked(torch.autograd.Function):
    """Queries against keys. The target is the positives, a teacher's softmax, or both.

    A chunk of rows has everything that its gradient needs except the normalisers of columns, which a first
    pass computes.
    """

    @staticmethod
    def forward(context: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        *given, plan = arguments
        groups = [given[:3]] if given[3] is None else [given[:3], given[3:]]
        needed = context.needs_input_grad[:3], context.needs_input_grad[3:6]
        dtype = common_dtype(*(tensor for query, key, _ in groups for tensor in (query, key)))
        with torch.autocast(given[0].device.type, enabled=False):
            sides = [Side.of(query, key, scale, plan.chunk, dtype) for query, key, scale in groups]
            gradients = [Gradient(side, requested) for side, requested in zip(sides, needed, strict=False)]
            matching, divergence = run_chunks(sides, plan, gradients)
            for gradient, (_, key, _) in zip(gradients, groups, strict=True):
                gradient.finish(key, plan.chunk)
        save_gradients(context, groups, gradients)
        context.mark_non_differentiable(matching, divergence)
        return plan.matching * matching + plan.divergence * divergence, matching, divergence

    @staticmethod
    @once_differentiable
    def backward(context: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        given = saved_gradients(context, upstream)
        return (*given, *[None] * (7 - len(given)))
