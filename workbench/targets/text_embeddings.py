"""Runs a language model over captions once and keeps their embeddings in a target store."""

from collections.abc import Callable, Sequence

import numpy as np

from workbench.files import sha256_of_json
from workbench.models.text_teacher import TextTeacher
from workbench.targets.image_text import ProgressLines
from workbench.targets.store import store_folder
from workbench.targets.store_writer import Column, fill

PORTION = 2048  # captions that are sorted by length together, and lost when a process is killed


def caption_embeddings(
    teacher: TextTeacher,
    captions: Sequence[str],
    *,
    name: str = "captions",
    say: Callable[[str], object] | None = print,
    rank: int = 0,
    world: int = 1,
) -> np.ndarray:
    """The teacher's embeddings of `captions`, a read-only memory map [n, dim], float32.

    Computed now, continued where a killed process stopped, or opened when all is there; the store lies in the
    cache under a fingerprint of teacher and captions, `name` is for people. `world` processes fill it
    together.
    """
    fingerprint = {
        "text_teacher": teacher.fingerprint,
        "dtype": str(next(teacher.model.parameters()).dtype).removeprefix("torch."),
        "captions": sha256_of_json(list(captions)),
    }

    def texts(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        return teacher.embed(captions[rows]), {}

    column = Column((len(captions), teacher.dim), "float32", texts)
    report = ProgressLines(say, "language model's") if say and rank == 0 else None
    store = fill(
        store_folder(fingerprint, f"{name}-language-model"),
        fingerprint,
        {"text": column},
        batch=PORTION,
        rank=rank,
        world=world,
        report=report,
    )
    return np.asarray(store.column("text"))
