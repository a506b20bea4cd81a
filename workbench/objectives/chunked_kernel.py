"""A pass over queries, a chunk at a time: the values of matching and divergence, and their gradient."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from workbench.objectives.similarity import unit


class Plan(NamedTuple):
    """What is wanted of the queries; `first` is the number of the key that belongs to the first of them."""

    chunk: int
    first: int
    both: bool
    matching: float
    divergence: float


class Side(NamedTuple):
    """Queries of any norm, unit keys, and what multiplies their cosine similarities."""

    query: Tensor
    key: Tensor
    scale: Tensor

    def unit_query(self, rows: slice) -> Tensor:
        """Some of the queries, made unit where they are needed: a copy of all would be as large as they."""
        return unit(self.query[rows].to(self.key.dtype))[0]

    @classmethod
    def of(cls, query: Tensor, key: Tensor, scale: Tensor, chunk: int, dtype: torch.dtype) -> "Side":
        """With everything but the queries in one dtype, a chunk of keys made unit at a time."""
        units = torch.empty_like(key, dtype=dtype)
        for rows in chunks(key, chunk):
            units[rows] = unit(key[rows].to(dtype))[0]
        return cls(query, units, scale.to(dtype))

    def logits(self, rows: slice, out: Tensor) -> Tensor:
        """Those of some queries with all keys, in the place of `out`."""
        return torch.mm(self.unit_query(rows).mul_(self.scale), self.key.T, out=out)


class Gradient:
    """What the loss asks of one side, summed up chunk by chunk; nothing is kept that nobody wants."""

    def __init__(self, side: Side, requested: Sequence[bool]) -> None:
        self.side = side
        dtype = side.key.dtype
        self.query, self.key, self.scale = (
            torch.zeros_like(tensor, dtype=dtype) if asked else None
            for tensor, asked in zip(side, requested, strict=True)
        )
        self.wanted = any(requested)

    def add(self, rows: slice, grad: Tensor) -> None:
        """Take up the gradient with respect to the logits of some queries."""
        query = self.side.unit_query(rows)
        if self.query is not None or self.scale is not None:
            grad_query = grad @ self.side.key
            if self.scale is not None:
                self.scale += (grad_query * query).sum()
            if self.query is not None:
                self.query[rows] = _through_unit(
                    grad_query.mul_(self.side.scale), self.side.query[rows], query
                )
        if self.key is not None:
            self.key.addmm_(grad.T, query.mul_(self.side.scale))

    def finish(self, key: Tensor, chunk: int) -> None:
        """Turn the gradient with respect to unit keys into that with respect to the keys as given."""
        if self.key is not None:
            for rows in chunks(key, chunk):
                _through_unit(self.key[rows], key[rows], self.side.key[rows])


def _through_unit(gradient: Tensor, rows: Tensor, units: Tensor) -> Tensor:
    """The gradient with respect to rows of any norm, in the place of that with respect to their `units`."""
    rows = rows.to(units.dtype)
    peak = rows.abs().amax(1, keepdim=True)
    norms = torch.where(peak > 0, peak * (rows / peak).mul_(units).sum(1, keepdim=True), 1)
    along = (gradient * units).sum(1, keepdim=True)
    return gradient.addcmul_(units, along, value=-1).div_(norms)


def chunks(rows: Tensor, chunk: int) -> list[slice]:
    """Slices of at most `chunk` rows."""
    return [slice(start, start + chunk) for start in range(0, len(rows), chunk)]


def run_chunks(sides: list[Side], plan: Plan, gradients: list[Gradient]) -> list[Tensor]:
    """The matching and the divergence, unweighted; adds the gradient of their weighted sum to `gradients`."""
    teaches = len(sides) == 2 and gradients[1].wanted
    whole = _Buffers.of(sides, plan.chunk)
    columns = _Columns.of(sides, plan.chunk, whole, teaches) if plan.both else None
    values = [torch.zeros_like(sides[0].scale), torch.zeros_like(sides[0].scale)]
    for rows in chunks(sides[0].query, plan.chunk):
        buffers = whole.part(len(sides[0].query[rows]))
        for side, out in zip(sides, buffers.logits, strict=True):
            side.logits(rows, out)
        grad_logits = _take(buffers, _of_rows, plan, rows.start + plan.first, teaches, values)
        if columns is not None:
            others = _take(buffers, columns.softmax, plan, rows.start, teaches, values)
            grad_logits = [grad.add_(other) for grad, other in zip(grad_logits, others, strict=True)]
        for gradient, grad in zip(gradients, grad_logits, strict=False):
            if gradient.wanted:
                gradient.add(rows, grad)
    return values


class _Buffers(NamedTuple):
    """Where a chunk's logits, probabilities and their gap go, [chunk, keys] each.

    Taken once: allocating it for every chunk is slower and leaves holes of that size.
    """

    logits: list[Tensor]
    shares: list[Tensor]
    gap: list[Tensor]

    @classmethod
    def of(cls, sides: list[Side], chunk: int) -> "_Buffers":
        key = sides[0].key
        counts = len(sides), len(sides), len(sides) - 1
        shape = min(chunk, len(sides[0].query)), len(key)
        return cls(*([key.new_empty(shape) for _ in range(count)] for count in counts))

    def part(self, rows: int) -> "_Buffers":
        """The first rows of it, for a chunk of so many."""
        return _Buffers(*([tensor[:rows] for tensor in group] for group in self))


class _Softmax(NamedTuple):
    """Each side's probabilities in one direction of a chunk of logits, the logarithms of what they were
    divided by ([rows, 1] or [1, keys]), and the divergence of each column, where it is not of the chunk's
    rows."""

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
    """Add a direction's share to the two `values`; returns the gradient of their weighted sum with respect to
    the logits, and, where it `teaches`, to the teacher's.

    They are p - y for the positives y and p - p_teacher, for the teacher's own logits p_teacher (log
    p_teacher - log p - KL). The first lies where the probabilities were.
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
    """What a chunk of rows cannot know of its columns: norms of each side and divergences, [1, keys]."""

    norms: list[Tensor]
    divergence: Tensor | None

    @classmethod
    def of(cls, sides: list[Side], chunk: int, buffers: _Buffers, with_divergence: bool) -> "_Columns":
        parts = chunks(sides[0].query, chunk)
        norms = []
        for side in sides:
            total = side.key.new_full((1, len(side.key)), -torch.inf)
            for rows in parts:
                logits = side.logits(rows, buffers.logits[0][: len(side.query[rows])])
                peak = logits.amax(0, keepdim=True)
                sums = logits.sub_(peak).exp_().sum(0, keepdim=True)
                total = torch.logaddexp(total, peak + sums.log())
            norms.append(total)
        if not with_divergence:
            return cls(norms, None)
        divergence = torch.zeros_like(norms[0])
        for rows in parts:
            places = buffers.part(len(sides[0].query[rows])).logits
            student, teacher = (
                side.logits(rows, out).sub_(norm)
                for side, out, norm in zip(sides, places, norms, strict=True)
            )
            divergence += (teacher - student).mul_(teacher.exp()).sum(0, keepdim=True)
        return cls(norms, divergence)

    def softmax(self, buffers: _Buffers) -> _Softmax:
        """In the place of the logits, which nothing needs any more."""
        shares = [tensor.sub_(norm).exp_() for tensor, norm in zip(buffers.logits, self.norms, strict=True)]
        return _Softmax(shares, self.norms, self.divergence)
