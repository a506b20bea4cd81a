"""Embeds the pictures and captions of a split. All metrics use the same embeddings."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from workbench.data.decode import BadSample
from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.files import sha256_of_json
from workbench.models.dual_encoder import DualEncoder
from workbench.models.transform import ImageTransform

LINE_EVERY = 20.0  # seconds between two lines of progress
_remembered: dict[str, dict[str, Tensor]] = {}  # digest of a text tower -> digest of captions -> embeddings


@dataclass
class Embedded:
    """The unit embeddings of a split, without unreadable pictures.

    `image` is [I, D], and `text` [T, D] is in the caption order of the pairs. `image_of_text` [T] are
    positions in `image`, `rows` [I] the rows of the pictures in the pairs. `failed` counts unreadable
    pictures by reason.
    """

    image: Tensor
    text: Tensor
    image_of_text: np.ndarray
    rows: np.ndarray
    failed: Counter[str] = field(default_factory=Counter)


@torch.no_grad()
def encode_texts(model: DualEncoder, captions: Sequence[str], batch: int = 256) -> Tensor:
    """Compute the unit embeddings [N, D] of captions, on the CPU in float32.

    Results are cached for the same captions and a text tower with the same weights, so that validating a
    student with a frozen text tower only has to embed pictures.
    """
    if not captions:
        return torch.empty(0, model.dim)
    captions = list(captions)
    key = sha256_of_json(captions)
    embeddings = _remembered_of(model)
    if key not in embeddings:
        model.eval()
        device = model.mean.device
        # Captions of similar length share a batch, which keeps padding short.
        order = np.argsort([len(caption) for caption in captions], kind="stable")
        embedded = torch.empty(len(captions), model.dim)
        for start in range(0, len(captions), batch):
            part = order[start : start + batch]
            tokens = model.tokenize([captions[index] for index in part])
            with model.autocast():
                embedded[part] = model.encode_text(tokens.to(device)).float().cpu()
        embeddings[key] = torch.nn.functional.normalize(embedded, dim=-1)
    return embeddings[key].clone()


def _remembered_of(model: DualEncoder) -> dict[str, Tensor]:
    """The cached embeddings of the text tower with these weights. Those of other towers are dropped."""
    digest = model.text_digest()
    if digest not in _remembered:
        _remembered.clear()
    return _remembered.setdefault(digest, {})


@torch.no_grad()
def encode_images(
    model: DualEncoder,
    pairs: Pairs,
    batch: int = 256,
    workers: int = 0,
    say: Callable[[str], object] | None = None,
) -> tuple[Tensor, np.ndarray, Counter[str]]:
    """Compute the unit embeddings [I, D] of a split's pictures, their rows [I], and failures by reason.

    `workers` processes read pictures in parallel; with 0 this process reads them. `say` is told the progress
    every 20 seconds. Raises SettingError if no picture is readable.
    """
    model.eval()
    spoke = time.monotonic()
    rows: list[int] = []
    parts: list[Tensor] = []
    failed = Counter[str]()
    loader = DataLoader(
        _Pictures(pairs, model.transform),
        sampler=[range(start, min(start + batch, len(pairs))) for start in range(0, len(pairs), batch)],
        batch_size=None,  # the samples are batches already
        num_workers=workers,
        generator=torch.Generator(),  # keeps the global generator unchanged
    )
    for readable, pictures, reasons in loader:
        failed.update(reasons)
        rows += readable
        if readable:
            parts.append(model.embed_images(pictures))
        if say and time.monotonic() - spoke > LINE_EVERY:
            say(f"{pairs.split}: {len(rows):,} of {len(pairs):,} pictures embedded")
            spoke = time.monotonic()
    if not parts:
        problem = f"no picture could be read: {dict(failed)}"
        raise SettingError("data", f"{pairs.name}:{pairs.split}", problem, "Fix the files.")
    return torch.nn.functional.normalize(torch.cat(parts), dim=-1), np.array(rows, dtype=np.int64), failed


@dataclass
class _Pictures(Dataset):
    """A dataset of transformed pictures by row, for data loader workers."""

    pairs: Pairs
    transform: ImageTransform

    def __getitem__(self, rows: Sequence[int]) -> tuple[list[int], Tensor, list[str]]:
        pictures, readable, reasons = [], [], []
        for row in rows:
            try:
                pictures.append(self.transform(self.pairs.image(row)))
                readable.append(row)
            except BadSample as error:
                reasons.append(str(error.reason))
        return readable, torch.stack(pictures) if pictures else torch.empty(0), reasons


def encode_pairs(
    model: DualEncoder,
    pairs: Pairs,
    batch: int = 256,
    workers: int = 0,
    say: Callable[[str], object] | None = None,
) -> Embedded:
    """Embed all pictures and captions of a split. Unreadable pictures are skipped with their captions."""
    image, rows, failed = encode_images(model, pairs, batch, workers, say)
    position = np.full(len(pairs), -1, dtype=np.int64)
    position[rows] = np.arange(len(rows))
    image_of_text = position[pairs.image_of_caption]
    kept = np.flatnonzero(image_of_text >= 0)
    captions = list(pairs.all_captions)
    text = encode_texts(model, [captions[index] for index in kept], batch)
    return Embedded(image, text, image_of_text[kept], rows, failed)
