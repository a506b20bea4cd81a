"""Stores and returns the gradients of losses that compute them in the forward pass."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from workbench.objectives.chunked_kernel import Gradient


def save_gradients(context: Any, groups: Sequence[Sequence[Tensor]], gradients: Sequence[Gradient]) -> None:
    """Save the gradients of (query, key, scale) of each group for the backward pass."""
    parts = [part for gradient in gradients for part in (gradient.query, gradient.key, gradient.scale)]
    context.save_for_backward(*parts)
    context.dtypes = [tensor.dtype for group in groups for tensor in group]


def saved_gradients(context: Any, upstream: Tensor) -> list[Tensor | None]:
    """The saved gradients times the gradient of the loss, in the dtypes of the inputs."""
    return [
        None if part is None else (upstream * part).to(dtype)
        for part, dtype in zip(context.saved_tensors, context.dtypes, strict=True)
    ]
