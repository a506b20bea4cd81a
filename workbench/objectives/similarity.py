"""Functions that objectives share: unit embeddings, logits, and checks of sizes."""

import functools
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

# A leading underscore names a size without checking it. The functions below check sizes instead, and raise a
# ValueError that names the two that differ.
Embeddings = Float[Tensor, "_batch _dim"]
Scale = int | float | Float[Tensor, ""]
Loss = Float[Tensor, ""]


def unit(*embeddings: Embeddings) -> tuple[Embeddings, ...]:
    """Embeddings with rows of length one, all in one dtype: the widest of theirs, and at least float32.

    A row of zeros stays a row of zeros, and its gradient stays finite.
    """
    dtype = common_dtype(*embeddings)
    return tuple(_unit_rows(side.to(dtype)) for side in embeddings)


def common_dtype(*tensors: Tensor) -> torch.dtype:
    """The widest of the tensors' dtypes, and at least float32."""
    return functools.reduce(torch.promote_types, [tensor.dtype for tensor in tensors], torch.float32)


def _unit_rows(embeddings: Embeddings) -> Embeddings:
    # Dividing by the largest entry first keeps the squares from overflowing or vanishing at extreme norms.
    # The result does not depend on that divisor, so no gradient is lost by treating it as a constant.
    peak = embeddings.detach().abs().amax(dim=-1, keepdim=True)
    scaled = embeddings / torch.where(peak > 0, peak, 1)
    square = scaled.square().sum(dim=-1, keepdim=True)
    return scaled * torch.where(square > 0, square, 1).rsqrt()


def mapped(head: Callable[[Tensor], Tensor], embeddings: Embeddings) -> Tensor:
    """Apply `head` to embeddings outside autocast, in the embeddings' dtype."""
    weight = next(head.parameters(), None) if isinstance(head, nn.Module) else None
    with torch.autocast(embeddings.device.type, enabled=False):
        return head(embeddings if weight is None else embeddings.to(weight.dtype)).to(embeddings.dtype)


def logits(query: Embeddings, key: Embeddings, scale: Scale) -> Float[Tensor, "_queries _keys"]:
    """Scaled cosine similarities of unit embeddings, in their own precision even under autocast."""
    with torch.autocast(query.device.type, enabled=False):
        return (scale * query) @ key.T


def check_batch(objective: str, **embeddings: Embeddings) -> int:
    """The common batch size of all `embeddings`. Raises ValueError naming the sizes if they differ or are
    0."""
    sizes = {name: len(side) for name, side in embeddings.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise ValueError(
            f"{objective}: expects one batch size, at least 1, for all embeddings; got {_listed(sizes)}"
        )
    return next(iter(sizes.values()))


def check_width(objective: str, remedy: str = "", **embeddings: Embeddings) -> None:
    """Raise ValueError naming the widths if those of the `embeddings` differ."""
    widths = {name: side.shape[-1] for name, side in embeddings.items()}
    if len(set(widths.values())) != 1:
        raise ValueError(f"{objective}: expects equal widths, got {_listed(widths)}{remedy}")


def _listed(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())
