"""Cosines of embeddings in float64, whatever their norm, dtype, device or container."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.objectives.threads import each_on_a_thread, thread_count

TIE = 1e-13  # cosines closer than this are equal; float64 rounds them by less than width x 1e-16
ROWS = 256  # converted to float64 at once: few enough to stay in a core's cache

Matrix = Tensor | np.ndarray
Indices = Tensor | np.ndarray | Sequence[int]


class NormalizedEmbeddings:
    """Original embeddings [N, D], and the factors that normalise their rows. A row of zeros stays zero."""

    def __init__(self, source: Matrix) -> None:
        self.source = source
        self.inverse_norm = torch.empty(len(source), dtype=torch.float64)

        def measure(parts: list[slice]) -> None:
            for part in parts:
                norm = torch.linalg.vector_norm(self.rows(part), dim=1)
                self.inverse_norm[part] = torch.where(norm > 0, norm, 1).reciprocal()

        each_on_a_thread(measure, shared_slices(len(source)))

    def __len__(self) -> int:
        return len(self.source)

    def rows(self, index: slice | Int[Tensor, " rows"]) -> Float[Tensor, "rows _dim"]:
        """These rows in float64 on the CPU. Do not write to them: they may share the source's memory."""
        if isinstance(self.source, np.ndarray):
            picked = self.source[index if isinstance(index, slice) else index.numpy()]
            return torch.from_numpy(picked.astype(np.float64))
        source = self.source.detach()
        if isinstance(index, slice):
            return source[index].to("cpu", torch.float64)
        return source.index_select(0, index.to(source.device)).to("cpu", torch.float64)

    def unit(self, multiple: int = 1) -> Float[Tensor, "rows _dim"]:
        """All rows normalised, in float32, padded with rows of NaN to a `multiple`."""
        padded = len(self) + -len(self) % multiple
        unit = torch.full((padded, self.source.shape[1]), torch.nan)

        def normalise(parts: list[slice]) -> None:
            for part in parts:
                unit[part] = self.rows(part) * self.inverse_norm[part, None]

        each_on_a_thread(normalise, shared_slices(len(self)))
        return unit


def pair_cosines(
    left: NormalizedEmbeddings,
    left_rows: Int[Tensor, " pairs"],
    right: NormalizedEmbeddings,
    right_rows: Int[Tensor, " pairs"],
) -> Float[Tensor, " pairs"]:
    """The cosine of row `left_rows[n]` with row `right_rows[n]`."""

    def multiply(parts: list[slice]) -> list[Tensor]:
        return [(left.rows(left_rows[part]) * right.rows(right_rows[part])).sum(dim=1) for part in parts]

    products = each_on_a_thread(multiply, shared_slices(len(left_rows)))
    return (
        torch.cat([*itertools.chain(*products), left.inverse_norm.new_empty(0)])
        * left.inverse_norm[left_rows]
        * right.inverse_norm[right_rows]
    )


def all_cosines(
    left: NormalizedEmbeddings,
    left_rows: Int[Tensor, " left"],
    right: NormalizedEmbeddings,
    right_rows: Int[Tensor, " right"],
) -> Float[Tensor, "left right"]:
    """The cosine of each of one side's rows with each of the other's."""
    product = left.rows(left_rows) @ right.rows(right_rows).T
    return product.mul_(left.inverse_norm[left_rows, None]).mul_(right.inverse_norm[right_rows])


def checked_indices(name: str, indices: Indices, length: int, limit: int) -> Int[Tensor, " rows"]:
    """`indices` as int64 on the CPU. Raises ValueError unless they are `length` integers in [0, limit)."""
    array = indices.cpu().numpy() if isinstance(indices, Tensor) else np.asarray(indices)
    if array.shape != (length,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name}: expects {length} integers, got {array.dtype} of shape {array.shape}")
    wrong = (array < 0) | (array >= limit)
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(f"{name}[{at}] = {array[at]}: expects a number from 0 to {limit - 1}")
    return torch.from_numpy(array.astype(np.int64))


def slices(length: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size` that cover `length`."""
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def shared_slices(length: int) -> list[list[slice]]:
    """The slices of at most ROWS for each thread, in order."""
    parts = list(slices(length, ROWS))
    share = -(-len(parts) // thread_count(torch.device("cpu"), len(parts)))
    return [parts[start : start + share] for start in range(0, len(parts), share or 1)]
