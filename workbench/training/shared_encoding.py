"""Embeds the validation split with all processes of a training."""

import numpy as np
import torch
from torch import Tensor

from workbench.data.pairs import Pairs
from workbench.errors import SettingError
from workbench.evaluation.encode import Embedded, encode_pairs
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
    bounds = np.linspace(0, len(pairs), session.world + 1).astype(np.int64)
    share = np.arange(bounds[session.rank], bounds[session.rank + 1])
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
        problem = "no picture could be read"
        raise SettingError("data.validation_split", settings.data.validation_split, problem, "fix the files")
    if not session.main:
        return None
    place = np.searchsorted(rows.numpy(), row_of_text.numpy())
    return Embedded(image, text, place, rows.numpy())


def _gathered(session: Session, values: Tensor) -> Tensor:
    """The rows of all processes, in order, on the CPU. Processes may have different numbers of rows."""
    return gathered(values.to(session.device), share_sizes(len(values), session.device)).cpu()
