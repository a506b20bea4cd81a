"""Matching and divergence losses over a batch that several processes share without any of them holding it
all.

Every process keeps its queries and passes keys on to the next process in a ring. A first round computes the
normalisers of the queries, a second one the gradient. If both directions are needed, one matrix serves both,
and sums over the queries travel with the keys they belong to. As in ring attention (Liu et al. 2023, arXiv
2310.01889).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from workbench.objectives.chunked_kernel import Gradient, Plan, Side, chunks
from workbench.objectives.forward_gradients import save_gradients, saved_gradients
from workbench.objectives.similarity import Embeddings, Loss, Scale, common_dtype

ROWS = 1024  # queries at a time if the caller gives no chunk
Embedded = tuple[Embeddings, Embeddings, Scale]  # queries, keys, multiplier of their cosine similarities


def ring_mixture(
    student: Embedded,
    teacher: Embedded | None,
    weights: tuple[float, float],
    ring: Sequence[int],
    chunk: int | None = None,
    *,
    both: bool = False,
) -> tuple[Loss, Loss, Loss]:
    """This process's share of `chunked_mixture` over the embeddings of all processes.

    Queries and keys are this process's own, `ring[rank]` of them, in torch's default group. Returns the
    weighted sum and, without gradient, the matching and the divergence. The gradient is that of all shares
    together, provided that every process passes the same gradient back. Needs O(chunk x the largest share)
    memory besides the embeddings. Raises ValueError if `ring` does not fit.
    """
    rank = dist.get_rank()
    if len(ring) != dist.get_world_size() or min(ring) < 1 or ring[rank] != len(student[0]):
        problem = f"process {rank} of {dist.get_world_size()} has {len(student[0])} rows"
        raise ValueError(
            f"ring = {tuple(ring)}: expects the number of rows of every process, 1 or more; {problem}"
        )
    flat = []
    for query, key, scale in [student] if teacher is None else [student, teacher]:
        flat += [query, key, torch.as_tensor(scale, device=query.device)]
    plan = Plan(chunk or ROWS, 0, both, *weights)
    return _Ring.apply(*flat, *[None] * (6 - len(flat)), plan, tuple(ring))


class _Ring(torch.autograd.Function):
    """Computes the gradient in the forward pass, like `_Chunked`."""

    @staticmethod
    def forward(context: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        *given, plan, ring = arguments
        groups = [given[:3]] if given[3] is None else [given[:3], given[3:]]
        needed = context.needs_input_grad[:3], context.needs_input_grad[3:6]
        dtype = common_dtype(*(tensor for query, key, _ in groups for tensor in (query, key)))
        with torch.autocast(given[0].device.type, enabled=False):
            sides = [Side.of(query, key, scale, plan.chunk, dtype) for query, key, scale in groups]
            gradients = [Gradient(side, requested) for side, requested in zip(sides, needed, strict=False)]
            normalisers = _find_normalisers(sides, plan, ring)
            if any(gradient.wanted for gradient in gradients):
                _add_gradients(sides, plan, ring, normalisers, gradients)
            for gradient, (_, key, _) in zip(gradients, groups, strict=True):
                gradient.finish(key, plan.chunk)
        positives = (sides[0].unit_query(slice(None)) * sides[0].key).sum(1) * sides[0].scale
        matching = torch.stack([(way.norms[0] - positives).sum() for way in normalisers]).sum()
        divergences = [way.divergence.sum() for way in normalisers if way.divergence is not None]
        divergence = torch.stack(divergences).sum() if divergences else torch.zeros_like(matching)
        save_gradients(context, groups, gradients)
        context.mark_non_differentiable(matching, divergence)
        return plan.matching * matching + plan.divergence * divergence, matching, divergence

    @staticmethod
    @once_differentiable
    def backward(context: Any, upstream: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        given = saved_gradients(context, upstream)
        return (*given, *[None] * (8 - len(given)))


class _Normalisers(NamedTuple):
    """Of one direction: the logarithms of the normalisers of each side's softmax and, with a teacher, the
    divergence; [rows] each."""

    norms: list[Tensor]
    divergence: Tensor | None


class _Sums:
    """Accumulates logarithms of sums of exponentials, and the teacher's mean difference from the student."""

    def __init__(self, parts: list[Tensor]) -> None:
        self.parts = parts  # each side's norm, and with a teacher the difference

    @classmethod
    def empty(cls, sides: list[Side], rows: int) -> "_Sums":
        norms = [side.key.new_full((rows,), -torch.inf) for side in sides]
        return cls([*norms, *[side.key.new_zeros(rows) for side in sides[1:]]])

    def add(self, rows: slice, logits: list[Tensor], dim: int) -> None:
        """Add logits along `dim`, for some of the rows."""
        parts = [part[rows] for part in self.parts]
        norms = [side.logsumexp(dim) for side in logits]
        totals = [torch.logaddexp(part, norm) for part, norm in zip(parts, norms, strict=False)]
        if len(logits) == 2:
            gap = (logits[1].softmax(dim) * (logits[1] - logits[0])).sum(dim)
            parts[2].mul_((parts[1] - totals[1]).exp()).add_(gap * (norms[1] - totals[1]).exp())
        for part, total in zip(parts, totals, strict=False):
            part.copy_(total)

    def normalisers(self) -> _Normalisers:
        """KL(teacher || student) is the teacher's mean difference, less its norm, plus the student's."""
        if len(self.parts) == 1:
            return _Normalisers(self.parts, None)
        student, teacher, gap = self.parts
        return _Normalisers([student, teacher], gap - teacher + student)


def _find_normalisers(sides: list[Side], plan: Plan, ring: Sequence[int]) -> list[_Normalisers]:
    """The normalisers of this process's queries and, with `both`, of its keys."""
    queries = _Sums.empty(sides, len(sides[0].query))

    def visit(owner: int, keys: list[Tensor], sums: list[Tensor]) -> None:
        visitors = _with_keys(sides, keys)
        columns = _Sums(sums)
        for rows in chunks(sides[0].query, plan.chunk):
            logits = [side.logits(rows) for side in visitors]
            queries.add(rows, logits, 1)
            if plan.both:
                columns.add(slice(None), logits, 0)

    travelling = _Sums.empty(sides, len(sides[0].key)).parts if plan.both else []
    home = _round(ring, [side.key for side in sides], travelling, visit)
    return [queries.normalisers(), *([_Sums(home).normalisers()] if plan.both else [])]


def _add_gradients(
    sides: list[Side],
    plan: Plan,
    ring: Sequence[int],
    normalisers: list[_Normalisers],
    gradients: list[Gradient],
) -> None:
    """Add the gradient of all processes' weighted sums with respect to this process's queries and unit
    keys."""
    teaches = len(sides) == 2 and gradients[1].wanted
    learning = [gradient for gradient in gradients if gradient.key is not None]
    of_queries = normalisers[0]

    def visit(owner: int, fixed: list[Tensor], sums: list[Tensor]) -> None:
        own = owner == dist.get_rank()
        visitors = _with_keys(sides, fixed)
        of_keys = fixed[len(sides) :]
        for gradient, side in zip(gradients, visitors, strict=True):
            gradient.side = side
        for gradient, total in zip(learning, sums, strict=True):
            gradient.key = total
        for rows in chunks(sides[0].query, plan.chunk):
            logits = [side.logits(rows) for side in visitors]
            own_divergence = None if of_queries.divergence is None else of_queries.divergence[rows, None]
            ways = [_Normalisers([norm[rows, None] for norm in of_queries.norms], own_divergence)]
            if plan.both:
                norms, divergence = of_keys[: len(sides)], of_keys[len(sides) :]
                ways.append(_Normalisers(norms, divergence[0] if divergence else None))
            positives = rows.start if own else None
            grads = [_grad_logits(logits, way, plan, positives, teaches) for way in ways]
            for gradient, *parts in zip(gradients, *grads, strict=False):
                if gradient.wanted:
                    gradient.add(rows, sum(parts[1:], parts[0]))

    fixed = [side.key for side in sides]
    if plan.both:
        fixed += normalisers[1].norms
        fixed += [] if normalisers[1].divergence is None else [normalisers[1].divergence]
    home = _round(ring, fixed, [gradient.key for gradient in learning if gradient.key is not None], visit)
    for gradient, side in zip(gradients, sides, strict=True):
        gradient.side = side
    for gradient, total in zip(learning, home, strict=True):
        gradient.key = total


def _grad_logits(
    logits: list[Tensor], way: _Normalisers, plan: Plan, positives: int | None, teaches: bool
) -> list[Tensor]:
    """The gradient of one direction's weighted sum with respect to the student's logits and, if it `teaches`,
    to the teacher's, as in `_take`. `positives` is the key that belongs to the first row."""
    logs = [side - norm for side, norm in zip(logits, way.norms, strict=True)]
    shares = [side.exp() for side in logs]
    grad = shares[0] * (plan.matching + plan.divergence)
    if positives is not None:
        grad.diagonal(positives).sub_(plan.matching)
    if way.divergence is None:  # without a teacher
        return [grad]
    grad.sub_(shares[1], alpha=plan.divergence)
    if not teaches:
        return [grad]
    return [grad, (logs[1] - logs[0] - way.divergence) * shares[1] * plan.divergence]


def _with_keys(sides: list[Side], keys: list[Tensor]) -> list[Side]:
    return [side._replace(key=key) for side, key in zip(sides, keys, strict=False)]


def _round(
    ring: Sequence[int],
    fixed: list[Tensor],
    sums: list[Tensor],
    visit: Callable[[int, list[Tensor], list[Tensor]], None],
) -> list[Tensor]:
    """Call `visit(owner, fixed, sums)` with every process's block, this process's first. Returns the sums of
    this process's block.

    A block is what its owner gave, [rows, ...] each. `visit` may add to `sums` in place. The next `fixed` are
    received while this process computes.
    """
    rank, world = dist.get_rank(), len(ring)
    for step in range(world):
        owner, coming = (rank - step) % world, ring[(rank - step - 1) % world]
        works, arriving = _pass_on(fixed, coming) if step < world - 1 else ([], [])
        visit(owner, fixed, sums)
        sum_works, arriving_sums = _pass_on(sums, coming)
        for work in (*works, *sum_works):
            work.wait()
        fixed, sums = arriving, arriving_sums
    return sums


def _pass_on(tensors: list[Tensor], coming: int) -> tuple[list[Any], list[Tensor]]:
    """Start to send tensors to the next process and to receive those of the previous one, of `coming`
    rows."""
    if not tensors or dist.get_world_size() == 1:
        return [], tensors
    rank, world = dist.get_rank(), dist.get_world_size()
    arriving = [tensor.new_empty(coming, *tensor.shape[1:]) for tensor in tensors]
    operations = [dist.P2POp(dist.isend, tensor.contiguous(), (rank + 1) % world) for tensor in tensors]
    operations += [dist.P2POp(dist.irecv, tensor, (rank - 1) % world) for tensor in arriving]
    return dist.batch_isend_irecv(operations), arriving
