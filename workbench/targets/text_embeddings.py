"""Runs a language model over captions once and keeps their embeddings in a target store."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from workbench.files import (
    cache_folder,
    read_json,
    sha256_of_json,
    sha256_of_strings,
    signed,
    unsigned,
    write_json,
)
from workbench.models.text_teacher import TextTeacher, default_precision, load_text_teacher
from workbench.models.text_teacher_files import teacher_files
from workbench.recipe.schema import TextTeacher as TextTeacherSettings
from workbench.targets.cached import Share, cached
from workbench.targets.store import TargetStore, is_complete, store_folder
from workbench.targets.store_writer import Column

PORTION = 2048  # captions that are sorted by length together, and lost when a process is killed


def caption_embeddings(
    teacher: TextTeacher, captions: Sequence[str], *, name: str = "captions", **share: Unpack[Share]
) -> np.ndarray:
    """The teacher's embeddings of `captions`, a read-only memory map [n, dim], float32.

    The store lies in the cache under a fingerprint of teacher and captions; `name` is for people.
    """
    return np.asarray(_embedded(teacher, captions, name, **share).column("text"))


def _embedded(
    teacher: TextTeacher, captions: Sequence[str], name: str, **share: Unpack[Share]
) -> TargetStore:
    fingerprint = _fingerprint(teacher.fingerprint, teacher.dtype, captions)

    def texts(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        return teacher.embed(captions[rows]), {}

    column = Column((len(captions), teacher.dim), "float32", texts)
    label = "language model's {} targets"
    return cached(
        fingerprint, f"{name}-language-model", {"text": column}, batch=PORTION, label=label, **share
    )


def text_teacher_store(
    settings: TextTeacherSettings,
    captions: Sequence[str],
    *,
    name: str = "captions",
    allow_download: bool = False,
    device: Any = "cpu",
    **share: Unpack[Share],
) -> TargetStore:
    """The store of `caption_embeddings` of the text teacher in a recipe, loaded only where some are missing.

    The fingerprint of its files is kept in the cache, because a model of billions of parameters takes minutes
    to load, and every process would load it to find that nothing is left to do.
    """
    precision = default_precision(device)
    source = teacher_files(settings.model)
    packages = [metadata.version(package) for package in ("transformers", "tokenizers")]
    packages.append("2")  # of how hub names are read
    key = sha256_of_json([source, settings.pooling, settings.layer, precision, packages])
    memory = cache_folder("text_teachers", f"fingerprint-{key[:16]}.json")
    known = _remembered(memory) if source is not None else None
    if known is not None:
        fingerprint = _fingerprint(known, precision, captions)
        folder = store_folder(fingerprint, f"{name}-language-model")
        if is_complete(folder):
            return TargetStore.open(folder, fingerprint)
    teacher = load_text_teacher(
        settings.model,
        pooling=settings.pooling,
        layer=settings.layer,
        precision=precision,
        allow_download=allow_download,
        device=device,
    )
    store = _embedded(teacher, captions, name, **share)
    if share.get("rank", 0) == 0 and source is not None:
        write_json(memory, signed({"fingerprint": teacher.fingerprint}))
    return store


def _remembered(file: Path) -> dict[str, Any] | None:
    """The fingerprint in the cache; None where there is none, or a damaged one: the teacher is loaded."""
    try:
        fingerprint = unsigned(read_json(file))["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return fingerprint if isinstance(fingerprint, dict) else None


def _fingerprint(teacher: dict[str, Any], dtype: str, captions: Sequence[str]) -> dict[str, Any]:
    return {"text_teacher": teacher, "dtype": dtype, "captions": sha256_of_strings(captions)}
