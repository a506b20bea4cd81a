"""Batches for training: order, caption choice and augmentation are pure functions of (seed, epoch, index)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from workbench.data.decode import BadSample
from workbench.data.pairs import Pairs
from workbench.errors import SettingError

Key = tuple[int, int]  # (epoch, row): all that a sample depends on


@dataclass
class Batch:
    """Samples of one step. A pair that could not be read is listed in `failed`, never replaced."""

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


@dataclass
class _Batches(Dataset):
    """Reads and prepares the batch of some (epoch, row); what data loader workers run."""

    pairs: Pairs
    seed: int
    view: Callable[[Tensor, int, int], Tensor]
    tokenize: Callable[[Sequence[str]], Tensor]

    def __getitem__(self, keys: Sequence[Key]) -> Batch | SettingError:
        try:
            return self._batch(keys)
        except SettingError as error:
            return error  # to be raised where it is read: from a worker, torch makes a traceback's text of it

    def _batch(self, keys: Sequence[Key]) -> Batch:
        images, failed, rows, positions, texts = [], [], [], [], []
        for epoch, row in keys:
            try:
                image = self.view(self.pairs.image(row), epoch, row)
            except BadSample as error:
                failed.append((self.pairs.table["id"][row].as_py(), str(error.reason)))
                continue
            position = caption_choice(self.pairs.first_caption, row, self.seed, epoch)
            images.append(image.permute(1, 2, 0))
            rows.append(row)
            positions.append(position)
            texts.append(self.pairs.captions(row)[position - int(self.pairs.first_caption[row])])
        # Channels last in memory, as the models expect them.
        pixels = torch.stack(images) if rows else torch.empty(0, 1, 1, 3, dtype=torch.uint8)
        tokens = self.tokenize(texts) if rows else torch.empty(0, 1, dtype=torch.int64)
        visited, captions = (np.array(numbers, dtype=np.int64) for numbers in (rows, positions))
        return Batch(pixels.permute(0, 3, 1, 2), tokens, visited, captions, failed)


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
        _Batches(pairs, seed, view, tokenize),
        sampler=keys,
        batch_size=None,  # the samples are batches already
        num_workers=workers,
        # Workers draw nothing themselves; the generator only keeps the loader from touching the global one.
        generator=torch.Generator(),
    )
    for loaded in loader:
        if isinstance(loaded, SettingError):
            raise loaded
        yield loaded
