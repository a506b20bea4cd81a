"""Batches for training: order, caption choice and augmentation are pure functions of (seed, epoch, index)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from workbench.data.decode import BadSample
from workbench.data.pairs import Pairs

Key = tuple[int, int]  # (epoch, row): all that a sample depends on


@dataclass
class Batch:
    """Samples of one step. A pair that could not be read is left out and listed, never replaced."""

    images: Tensor  # uint8 [B, 3, H, W]
    tokens: Tensor  # int64 [B, length]
    rows: np.ndarray  # [B] rows of the pairs
    caption: np.ndarray  # [B] position of the chosen caption among all captions
    failed: list[tuple[str, str]] = field(default_factory=list)  # (sample id, reason)

    def __len__(self) -> int:
        return len(self.rows)


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order [count] in which an epoch visits the rows."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)


def caption_choice(first_caption: np.ndarray, row: int, seed: int, epoch: int) -> int:
    """Which caption of `row` an epoch uses, as a position among all captions.

    Every caption comes up once in as many epochs as the picture has captions, from a start of its own.
    """
    start, end = int(first_caption[row]), int(first_caption[row + 1])
    if end - start == 1:
        return start
    offset = int(np.random.Generator(np.random.Philox(key=[seed, row])).integers(end - start))
    return start + (offset + epoch) % (end - start)


class Samples(Dataset):
    """Reads and prepares single samples by (epoch, row); what data loader workers run."""

    def __init__(self, pairs: Pairs, seed: int, view: Callable[[Tensor, int, int], Tensor]) -> None:
        self.pairs = pairs
        self.seed = seed
        self.view = view

    def __getitem__(self, key: Key) -> tuple[int, Tensor | str, int]:
        epoch, row = key
        caption = caption_choice(self.pairs.first_caption, row, self.seed, epoch)
        try:
            return row, self.view(self.pairs.image(row), epoch, row), caption
        except BadSample as error:
            return row, error.reason, caption


class _Collate:
    def __init__(self, pairs: Pairs, tokenize: Callable[[Sequence[str]], Tensor]) -> None:
        self.pairs = pairs
        self.tokenize = tokenize

    def __call__(self, samples: Sequence[tuple[int, Tensor | str, int]]) -> Batch:
        good = [(row, image, caption) for row, image, caption in samples if isinstance(image, Tensor)]
        failed = [
            (self.pairs.table["id"][row].as_py(), str(reason))
            for row, reason, _ in samples
            if not isinstance(reason, Tensor)
        ]
        rows = np.array([row for row, _, _ in good], dtype=np.int64)
        caption = np.array([caption for _, _, caption in good], dtype=np.int64)
        texts = [
            self.pairs.captions(int(row))[int(position - self.pairs.first_caption[row])]
            for row, _, position in good
        ]
        # The channels of a pixel together, as the models want them.
        images = (
            torch.stack([image.permute(1, 2, 0) for _, image, _ in good]).permute(0, 3, 1, 2)
            if good
            else torch.empty(0, 3, 1, 1, dtype=torch.uint8)
        )
        return Batch(
            images,
            self.tokenize(texts) if good else torch.empty(0, 1, dtype=torch.int64),
            rows,
            caption,
            failed,
        )


def batches(
    pairs: Pairs,
    view: Callable[[Tensor, int, int], Tensor],
    tokenize: Callable[[Sequence[str]], Tensor],
    *,
    batch: int,
    seed: int,
    epoch: int,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    exclude: np.ndarray | None = None,
) -> Iterator[Batch]:
    """One process's share of an epoch's batches, from global batch number `start` on.

    `view(image, epoch, row)` prepares a picture; `batch` counts the pairs of all `world` processes together;
    the last, incomplete batch is dropped, so every step sees the same number. `exclude` lists rows known to
    be unreadable.
    """
    order = epoch_order(len(pairs), seed, epoch)
    if exclude is not None and len(exclude):
        order = order[~np.isin(order, exclude)]
    share = batch // world
    keys = [
        [(epoch, int(row)) for row in order[step * batch + rank * share : step * batch + (rank + 1) * share]]
        for step in range(start, len(order) // batch)
    ]
    loader = DataLoader(
        Samples(pairs, seed, view),
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_Collate(pairs, tokenize),
        # Workers draw nothing themselves; the generator only keeps the loader from touching the global one.
        generator=torch.Generator(),
    )
    yield from loader
