"""Batches for training. Order, caption choice and augmentation are pure functions of (seed, epoch, index)."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from workbench.data.caption_columns import caption_choice
from workbench.data.decode import BadSample
from workbench.data.false_captions import HardNegatives
from workbench.data.pairs import Pairs
from workbench.errors import SettingError

AT_ONCE = 8  # shards that are read side by side when an epoch follows the shards

Key = tuple[int, int]  # (epoch, row), which determine a sample


@dataclass
class Batch:
    """Samples of one step. An unreadable pair is listed in `failed` and never replaced. `false` and
    `false_tokens` belong to hard negative captions, for the pictures that bring one."""

    images: Tensor  # uint8 [B, 3, H, W]
    tokens: Tensor  # int64 [B, length]
    rows: np.ndarray  # [B] rows of the pairs
    caption: np.ndarray  # [B] position of the chosen caption among all captions, -1: the picture has none
    failed: list[tuple[str, str]] = field(default_factory=list)  # (sample id, reason)
    waited: float = 0.0  # seconds that the training waited for this batch
    false: np.ndarray | None = None  # [B] number of the hard negative caption, -1 for none
    false_tokens: Tensor | None = None  # int64 [B, length]

    def __len__(self) -> int:
        return len(self.rows)

    def pin_memory(self) -> "Batch":
        """A copy in pinned memory, so that transfers to a GPU overlap with computation."""
        false = None if self.false_tokens is None else self.false_tokens.pin_memory()
        images, tokens = self.images.pin_memory(), self.tokens.pin_memory()
        return replace(self, images=images, tokens=tokens, false_tokens=false)


def epoch_order(count: int, seed: int, epoch: int, shard: np.ndarray | None = None) -> np.ndarray:
    """The order [count] in which an epoch visits the rows.

    With the `shard` [count] of every row, a few shards at a time are read side by side, each from start to
    end. Every epoch draws which shards are read together and how their rows alternate.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    if shard is None:
        return generator.permutation(count)
    shards, shard = np.unique(shard, return_inverse=True)
    turn = generator.permutation(len(shards))[shard] // AT_ONCE
    drawn = generator.random(count)
    position = np.empty(count)
    # The rows of a shard take its draws in ascending order.
    position[np.argsort(shard, kind="stable")] = drawn[np.lexsort((drawn, shard))]
    return np.lexsort((position, turn))


@dataclass
class _Batches(Dataset):
    """Reads and prepares batches by (epoch, row), in the workers of the data loader."""

    pairs: Pairs
    seed: int
    view: Callable[[Tensor, int, int], Tensor]
    tokenize: Callable[[Sequence[str]], Tensor]
    hard: HardNegatives | None = None

    def __getitem__(self, keys: Sequence[Key]) -> Batch | SettingError:
        try:
            return self._batch(keys)
        except SettingError as error:
            return error  # raised by the reader, because torch would replace it by the text of a traceback

    def _batch(self, keys: Sequence[Key]) -> Batch:
        images, failed, rows, positions, texts = [], [], [], [], []
        numbers: list[int] = []
        for epoch, row in keys:
            try:
                image = self.view(self.pairs.image(row), epoch, row)
            except BadSample as error:
                failed.append((self.pairs.id(row), str(error.reason)))
                continue
            position = caption_choice(self.pairs, row, self.seed, epoch)
            if self.hard is not None:
                position, number = self.hard(row, epoch, position)
                numbers.append(number)
            images.append(image.permute(1, 2, 0))
            rows.append(row)
            positions.append(position)
            first = int(self.pairs.first_caption[row])
            texts.append(self.pairs.captions(row)[position - first] if position >= 0 else "")
        # Channels last in memory, as the models expect them.
        pixels = torch.stack(images) if rows else torch.empty(0, 1, 1, 3, dtype=torch.uint8)
        tokens = self.tokenize(texts) if rows else torch.empty(0, 1, dtype=torch.int64)
        visited, captions, false = (np.array(side, dtype=np.int64) for side in (rows, positions, numbers))
        batch = Batch(pixels.permute(0, 3, 1, 2), tokens, visited, captions, failed)
        if self.hard is None:
            return batch
        known = self.hard.false.captions
        wrong = [known[number].text if number >= 0 else "" for number in numbers]
        return replace(batch, false=false, false_tokens=self.tokenize(wrong) if rows else tokens)


def batches(
    pairs: Pairs,
    view: Callable[[Tensor, int, int], Tensor],
    tokenize: Callable[[Sequence[str]], Tensor],
    *,
    batch: int,
    seed: int,
    steps: range,
    shard: np.ndarray | None = None,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pinned: bool = False,
    exclude: np.ndarray | None = None,
    hard: HardNegatives | None = None,
) -> Iterator[Batch]:
    """One process's share of the batches of the global `steps`, counted from the start of the first epoch.

    `view(image, epoch, row)` prepares a picture. `batch` counts the pairs of all `world` processes together.
    The last, incomplete batch of an epoch is dropped, so every step has the same size. `shard` is that of
    `epoch_order`. `exclude` lists rows known to be unreadable. `pinned` copies batches to pinned memory for a
    GPU. `hard` chooses the pictures that bring a hard negative caption. One set of loader workers serves all
    epochs and prepares batches ahead, beyond the end of an epoch.
    """
    loader = DataLoader(
        _Batches(pairs, seed, view, tokenize, hard),
        sampler=_keys(len(pairs), batch, seed, steps, shard, rank, world, exclude),
        batch_size=None,  # the samples are batches already
        num_workers=workers,
        pin_memory=pinned,
        # Workers draw no random numbers; the generator keeps the loader from using the global one.
        generator=torch.Generator(),
    )
    began = time.perf_counter()
    for loaded in loader:
        if isinstance(loaded, SettingError):
            raise loaded
        yield replace(loaded, waited=time.perf_counter() - began)
        began = time.perf_counter()


def _keys(
    count: int,
    batch: int,
    seed: int,
    steps: range,
    shard: np.ndarray | None,
    rank: int,
    world: int,
    exclude: np.ndarray | None,
) -> Iterator[list[Key]]:
    """The keys that a process reads in every step."""
    kept = np.ones(count, dtype=bool)
    if exclude is not None:
        kept[exclude] = False
    per_epoch, share = int(kept.sum()) // batch, batch // world
    order, ordered = np.empty(0, dtype=np.int64), -1
    for step in steps:
        epoch, position = divmod(step, per_epoch)
        if epoch != ordered:
            order, ordered = epoch_order(count, seed, epoch, shard), epoch
            order = order[kept[order]]
        start = position * batch + rank * share
        yield [(epoch, int(row)) for row in order[start : start + share]]
