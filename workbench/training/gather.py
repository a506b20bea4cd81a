"""Gathers the rows of a batch that several processes share, with their gradient; leaves their group."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    """All processes' rows, in rank order. The gradient of every process's loss returns to the rows' owner."""

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
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def share_sizes(local: int, device: torch.device) -> list[int]:
    """The number of pairs of each process in this batch, fewer where an unreadable pair was dropped."""
    if processes() == 1:
        return [local]
    mine = torch.tensor([local], device=device)
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    return [int(size) for size in everyone]


def gathered(side: Any, sizes: Sequence[int]) -> Any:
    """All processes' rows of an embedding or target. Anything but a tensor is the same in every process."""
    return _Gather.apply(side, sizes) if isinstance(side, Tensor) else side


def leave_group() -> None:
    """Leave gloo's process group, if this process is in it: one that exits as a member may abort
    (pytorch/pytorch#190489). NCCL's is kept, because leaving it waits for the others, which may have failed.
    """
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()
