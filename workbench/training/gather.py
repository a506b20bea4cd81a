"""Rows of a batch that several processes share, put together with their gradient."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


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


def share_sizes(local: int, device: torch.device) -> list[int]:
    """How many pairs each process has in this batch: one that dropped an unreadable pair has fewer."""
    if processes() == 1:
        return [local]
    mine = torch.tensor([local], device=device)
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    return [int(size) for size in everyone]


def gathered(side: Any, sizes: Sequence[int]) -> Any:
    """All processes' rows of an embedding or target; what is no tensor is the same everywhere."""
    return _Gather.apply(side, sizes) if isinstance(side, Tensor) else side
