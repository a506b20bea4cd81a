"""A pass over queries in chunks that computes matching and divergence, and their gradient."""

import copy
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.objectives.similarity import unit
from workbench.objectives.threads import each_on_a_thread, thread_count

FEWEST_ROWS = 64  # of a thread at a time; fewer would make matrix products slow


class Plan(NamedTuple):
    """What to compute for the queries; `first` is the index of the key that belongs to the first query."""

    chunk: int
    first: int
    both: bool
    matching: float
    divergence: float


class Side(NamedTuple):
    """Queries of any norm, unit keys, and the multiplier of their cosine similarities."""

    query: Tensor
    key: Tensor
    scale: Tensor

    def unit_query(self, rows: slice) -> Tensor:
        """Some of the queries, normalised on demand, because a normalised copy of all would be large."""
        return unit(self.query[rows].to(self.key.dtype))[0]

    @classmethod
    def of(cls, query: Tensor, key: Tensor, scale: Tensor, chunk: int, dtype: torch.dtype) -> "Side":
        """Convert everything but the queries to one dtype, and normalise the keys a chunk at a time."""
        units = torch.empty_like(key, dtype=dtype)

        def normalise(parts: list[slice]) -> None:
            for rows in parts:
                units[rows] = unit(key[rows].to(dtype))[0]

        each_on_a_thread(normalise, shared_chunks(key, chunk))
        return cls(query, units, scale.to(dtype))

    def logits(self, rows: slice, out: Tensor | None = None) -> Tensor:
        """The logits of some queries with all keys, written into `out` if it is given."""
        return torch.mm(self.unit_query(rows).mul_(self.scale), self.key.T, out=out)


class Gradient:
    """The gradient of the loss with respect to one side, summed chunk by chunk where it is required."""

    def __init__(self, side: Side, requested: Sequence[bool]) -> None:
        self.side = side
        dtype = side.key.dtype
        self.query, self.key, self.scale = (
            torch.zeros_like(tensor, dtype=dtype) if asked else None
            for tensor, asked in zip(side, requested, strict=True)
        )
        self.wanted = any(requested)

    def add(self, rows: slice, grad: Tensor) -> None:
        """Add the gradient with respect to the logits of some queries."""
        query = self.side.unit_query(rows)
        if self.query is not None or self.scale is not None:
            grad_query = grad @ self.side.key
            if self.scale is not None:
                self.scale += (grad_query * query).sum()
            if self.query is not None:
                self.query[rows] += _through_unit(
                    grad_query.mul_(self.side.scale), self.side.query[rows], query
                )
        if self.key is not None:
            self.key.addmm_(grad.T, query.mul_(self.side.scale))

    def share(self) -> "Gradient":
        """A gradient for another thread, with separate sums; both write to the rows of the same queries."""
        other = copy.copy(self)
        other.key, other.scale = (
            None if part is None else torch.zeros_like(part) for part in (self.key, self.scale)
        )
        return other

    def add_share(self, other: "Gradient") -> None:
        """Add the sums of another thread."""
        for total, part in ((self.key, other.key), (self.scale, other.scale)):
            if total is not None and part is not None:
                total += part

    def finish(self, key: Tensor, chunk: int) -> None:
        """Convert the gradient with respect to unit keys into that with respect to the original keys."""
        gradient = self.key
        if gradient is None:
            return

        def map_back(parts: list[slice]) -> None:
            for rows in parts:
                _through_unit(gradient[rows], key[rows], self.side.key[rows])

        each_on_a_thread(map_back, shared_chunks(key, chunk))


def _through_unit(gradient: Tensor, rows: Tensor, units: Tensor) -> Tensor:
    """Convert in place the gradient with respect to `units` into that with respect to rows of any norm."""
    rows = rows.to(units.dtype)
    peak = rows.abs().amax(1, keepdim=True)
    norms = torch.where(peak > 0, peak * (rows / peak).mul_(units).sum(1, keepdim=True), 1)
    along = (gradient * units).sum(1, keepdim=True)
    return gradient.addcmul_(units, along, value=-1).div_(norms)


def chunks(rows: Tensor, chunk: int) -> list[slice]:
    """Slices of at most `chunk` rows."""
    return [slice(start, min(start + chunk, len(rows))) for start in range(0, len(rows), chunk)]


def shared_chunks(rows: Tensor, chunk: int) -> list[list[slice]]:
    """The chunks of every thread: consecutive rows, at most `chunk` of all threads together at a time."""
    threads = thread_count(rows.device, chunk // FEWEST_ROWS)
    parts = chunks(rows, chunk // threads)
    share = -(-len(parts) // threads)
    return [parts[start : start + share] for start in range(0, len(parts), share or 1)]


def run_chunks(sides: list[Side], plan: Plan, gradients: list[Gradient]) -> list[Tensor]:
    """The matching and the divergence, unweighted. Adds the gradient of their weighted sum to `gradients`."""
    teaches = len(sides) == 2 and gradients[1].wanted
    shares = [
        _Share(
            parts,
            _Buffers.of(sides, parts),
            [gradient.share() if number else gradient for gradient in gradients],
        )
        for number, parts in enumerate(shared_chunks(sides[0].query, plan.chunk))
    ]
    columns = _Columns.of(sides, shares, teaches) if plan.both else None

    def run(share: _Share) -> list[Tensor]:
        values = [torch.zeros_like(sides[0].scale), torch.zeros_like(sides[0].scale)]
        for rows in share.parts:
            buffers = share.buffers.part(rows)
            for side, out in zip(sides, buffers.logits, strict=True):
                side.logits(rows, out)
            grad_logits = _take(buffers, _of_rows, plan, rows.start + plan.first, teaches, values)
            if columns is not None:
                others = _take(buffers, columns.softmax, plan, rows.start, teaches, values)
                grad_logits = [grad.add_(other) for grad, other in zip(grad_logits, others, strict=True)]
            for gradient, grad in zip(share.gradients, grad_logits, strict=False):
                if gradient.wanted:
                    gradient.add(rows, grad)
        return values

    values = [torch.zeros_like(sides[0].scale), torch.zeros_like(sides[0].scale)]
    for share, found in zip(shares, each_on_a_thread(run, shares), strict=True):
        values = [total + value for total, value in zip(values, found, strict=True)]
        for gradient, part in zip(gradients, share.gradients, strict=True):
            if part is not gradient:
                gradient.add_share(part)
    return values


class _Buffers(NamedTuple):
    """Memory for a chunk's logits, probabilities and their difference, [chunk, keys] each.

    Allocated once, because allocating it for every chunk is slower and fragments the memory.
    """

    logits: list[Tensor]
    shares: list[Tensor]
    gap: list[Tensor]

    @classmethod
    def of(cls, sides: list[Side], parts: list[slice]) -> "_Buffers":
        key = sides[0].key
        counts = len(sides), len(sides), len(sides) - 1
        shape = max(rows.stop - rows.start for rows in parts), len(key)
        return cls(*([key.new_empty(shape) for _ in range(count)] for count in counts))

    def part(self, rows: slice) -> "_Buffers":
        """The part of the buffers for a chunk of this many rows."""
        return _Buffers(*([tensor[: rows.stop - rows.start] for tensor in group] for group in self))


class _Share(NamedTuple):
    """The work of one thread: its chunks, and the memory for their logits and gradients."""

    parts: list[slice]
    buffers: _Buffers
    gradients: list[Gradient]


class _Softmax(NamedTuple):
    """Each side's probabilities in one direction of a chunk of logits, the logarithms of their normalisers
    ([rows, 1] or [1, keys]), and the divergence of each column if it is not that of the chunk's rows."""

    shares: list[Tensor]
    norms: list[Tensor]
    divergence: Tensor | None = None


def _of_rows(buffers: _Buffers) -> _Softmax:
    norms = []
    for logits, shares in zip(buffers.logits, buffers.shares, strict=True):
        torch.softmax(logits, 1, out=shares)
        # The largest logit and its probability give the norm without another exponential.
        norms.append(logits.amax(1, keepdim=True) - shares.amax(1, keepdim=True).log())
    return _Softmax(buffers.shares, norms)


def _take(
    buffers: _Buffers,
    softmax: Callable[[_Buffers], _Softmax],
    plan: Plan,
    first: int,
    teaches: bool,
    values: list[Tensor],
) -> list[Tensor]:
    """Add a direction's share to the two `values`. Returns the gradient of their weighted sum with respect to
    the logits and, if it `teaches`, to the teacher's.

    The gradients are p - y for the positives y, p - p_teacher, and, for the teacher's logits, p_teacher (log
    p_teacher - log p - KL). The first overwrites the probabilities.
    """
    positives = buffers.logits[0].diagonal(first).clone()
    gaps = [torch.sub(buffers.logits[1], buffers.logits[0], out=gap) for gap in buffers.gap]
    (grad, *targets), norms, divergence = softmax(buffers)
    values[0] += (norms[0].expand_as(grad).diagonal(first) - positives).sum()
    grad.mul_(plan.matching + plan.divergence)
    grad.diagonal(first).sub_(plan.matching)
    grad_logits = [grad]
    for target, gap in zip(targets, gaps, strict=True):
        grad.sub_(target, alpha=plan.divergence)
        gap.add_(norms[0] - norms[1]).mul_(target)
        values[1] += gap.sum()
        if teaches:
            total = gap.sum(1, keepdim=True) if divergence is None else divergence
            grad_logits.append(gap.sub(target.mul_(total)).mul_(plan.divergence))
    return grad_logits


class _Columns(NamedTuple):
    """Facts about columns that a chunk of rows lacks: norms of each side and divergences, [1, keys]."""

    norms: list[Tensor]
    divergence: Tensor | None

    @classmethod
    def of(cls, sides: list[Side], shares: list[_Share], with_divergence: bool) -> "_Columns":
        def add_up_norms(share: _Share) -> list[Tensor]:
            norms = []
            for side in sides:
                total = side.key.new_full((1, len(side.key)), -torch.inf)
                for rows in share.parts:
                    logits = side.logits(rows, share.buffers.part(rows).logits[0])
                    peak = logits.amax(0, keepdim=True)
                    sums = logits.sub_(peak).exp_().sum(0, keepdim=True)
                    total = torch.logaddexp(total, peak + sums.log())
                norms.append(total)
            return norms

        norms = [
            functools.reduce(torch.logaddexp, totals)
            for totals in zip(*each_on_a_thread(add_up_norms, shares), strict=True)
        ]
        if not with_divergence:
            return cls(norms, None)

        def add_up_divergence(share: _Share) -> Tensor:
            divergence = torch.zeros_like(norms[0])
            for rows in share.parts:
                places = share.buffers.part(rows).logits
                student, teacher = (
                    side.logits(rows, out).sub_(norm)
                    for side, out, norm in zip(sides, places, norms, strict=True)
                )
                divergence += (teacher - student).mul_(teacher.exp()).sum(0, keepdim=True)
            return divergence

        return cls(norms, functools.reduce(torch.add, each_on_a_thread(add_up_divergence, shares)))

    def softmax(self, buffers: _Buffers) -> _Softmax:
        """Compute the softmax in the memory of the logits, which are no longer needed."""
        shares = [tensor.sub_(norm).exp_() for tensor, norm in zip(buffers.logits, self.norms, strict=True)]
        return _Softmax(shares, self.norms, self.divergence)
