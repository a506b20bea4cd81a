"""Embeds the validation split and zero-shot sets with all processes of a training."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.evaluation.encode import Embedded, encode_images, encode_pairs, encode_texts
from workbench.models.dual_encoder import DualEncoder
from workbench.training.gather import gathered, share_sizes
from workbench.training.session import Session


def encode_together(session: Session, student: DualEncoder, pairs: Pairs) -> Embedded | None:
    """The embeddings of `pairs`, in the first process. None in the others, which embed their part of them.

    Every process takes consecutive rows, so that results arrive in the order of the rows. Raises SettingError
    if no process could read a picture.
    """
    settings = session.recipe
    batch, workers = settings.evaluation.batch, settings.data.workers
    if session.world == 1:
        return encode_pairs(student, pairs, batch, workers)
    share = _share(session, len(pairs))
    try:
        ours = encode_pairs(student, pairs.select(share), batch, workers)
    except SettingError:  # no picture of this part is readable, but others may be
        nothing = np.empty(0, dtype=np.int64)
        empty = torch.empty(0, student.dim)
        ours = Embedded(empty, empty, nothing, nothing)
    image = _gathered(session, ours.image)
    text = _gathered(session, ours.text)
    rows = _gathered(session, torch.from_numpy(share[ours.rows]))
    # By row of the picture, which is the same in every process, not by its position in this process.
    row_of_text = _gathered(session, torch.from_numpy(share[ours.rows[ours.image_of_text]]))
    if not len(rows):
        raise _unreadable(pairs)
    if not session.main:
        return None
    place = np.searchsorted(rows.numpy(), row_of_text.numpy())
    return Embedded(image, text, place, rows.numpy())


def encode_images_together(
    session: Session, student: DualEncoder, pairs: Pairs
) -> tuple[Tensor, npt.NDArray[np.int64]] | None:
    """The embeddings of the pictures of `pairs` and their rows, as in `encode_together`."""
    batch, workers = session.recipe.evaluation.batch, session.recipe.data.workers
    if session.world == 1:
        return encode_images(student, pairs, batch, workers)[:2]
    share = _share(session, len(pairs))
    try:
        image, rows, _ = encode_images(student, pairs.select(share), batch, workers)
    except SettingError:
        image, rows = torch.empty(0, student.dim), np.empty(0, dtype=np.int64)
    every_image = _gathered(session, image)
    every_row = _gathered(session, torch.from_numpy(share[rows]))
    if not len(every_row):
        raise _unreadable(pairs)
    return (every_image, every_row.numpy()) if session.main else None


def encode_texts_together(session: Session, student: DualEncoder, texts: Sequence[str]) -> Tensor | None:
    """The embeddings of `texts` in their order, as in `encode_together`."""
    share = _share(session, len(texts))
    ours = encode_texts(student, [texts[row] for row in share], session.recipe.evaluation.batch)
    if session.world == 1:
        return ours
    every_text = _gathered(session, ours)
    return every_text if session.main else None


def _share(session: Session, rows: int) -> npt.NDArray[np.int64]:
    """The rows of this process, of so many."""
    bounds = np.linspace(0, rows, session.world + 1).astype(np.int64)
    return np.arange(bounds[session.rank], bounds[session.rank + 1])


def _unreadable(pairs: Pairs) -> SettingError:
    return SettingError("data", f"{pairs.name}:{pairs.split}", "no picture could be read", "Fix the files.")


def _gathered(session: Session, values: Tensor) -> Tensor:
    """The rows of all processes, in order, on the CPU. Processes may have different numbers of rows."""
    return gathered(values.to(session.device), share_sizes(len(values), session.device)).cpu()
