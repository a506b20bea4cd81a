"""What a language model says about the training captions: its embeddings, standardised, and concepts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from workbench.data.pairs import Pairs
from workbench.files import cache_lock, sha256_of_json
from workbench.recipe import Recipe
from workbench.targets.cached import Share, cached
from workbench.targets.concepts import ROWS, TOP, Concepts, Sparse, fit_concepts
from workbench.targets.standardise import Standardiser
from workbench.targets.store import TargetStore
from workbench.targets.store_writer import Column
from workbench.targets.text_embeddings import text_teacher_store

STANDARDISER, CONCEPTS = "standardiser.npz", "concepts.npz"


class TextTeacherTargets:
    """Targets by position of the caption among all captions; nothing is held that can be looked up."""

    def __init__(
        self,
        raw: np.ndarray,
        standardiser: Standardiser,
        concepts: Concepts | None,
        labels: Callable[[np.ndarray], Sparse] | None,
    ) -> None:
        self.raw = raw
        self.standardiser = standardiser
        self.concepts = concepts
        self.labels = labels
        self.dim = self.embedding(np.arange(1)).shape[1]

    @property
    def clusters(self) -> int | None:
        """How many concepts there are; None where the recipe has none."""
        return len(self.concepts.centroids) if self.concepts else None

    def embedding(self, captions: np.ndarray) -> np.ndarray:
        """Standardised embeddings [batch, dim] of these captions."""
        return self.standardiser(np.asarray(self.raw[captions], dtype=np.float32))

    def soft_labels(self, captions: np.ndarray) -> np.ndarray:
        """Distributions over the concepts [batch, clusters] of these captions."""
        if self.labels is None or self.concepts is None:
            raise ValueError("these targets have no concepts")
        return self.labels(captions).dense(len(self.concepts.centroids))


def embed_captions(
    recipe: Recipe, pairs: Pairs, *, device: Any = "cpu", **share: Unpack[Share]
) -> TargetStore | None:
    """The store of the text teacher's embeddings of all captions, filled by all processes; None where the
    recipe has no use for one."""
    settings = recipe.text_teacher
    if settings is None or not (recipe.objectives.embedding or recipe.objectives.concepts):
        return None
    with torch.random.fork_rng(devices=[]):  # making a model draws numbers, and the student's go on after it
        return text_teacher_store(
            settings,
            pairs.all_captions,
            name=f"{pairs.name}-{pairs.split}",
            allow_download=recipe.allow_download,
            device=device,
            **share,
        )


def text_teacher_targets(
    recipe: Recipe, pairs: Pairs, folder: Path, *, device: Any = "cpu", **share: Unpack[Share]
) -> TextTeacherTargets | None:
    """The text teacher's targets for a recipe's training pairs; None where it has no text teacher.

    Embeddings and soft labels are cached like every teacher's, and filled by all processes. What is fitted on
    the embeddings (mean and deviation, concepts) is fitted on the training captions alone, by one process
    while the others wait, and kept in `folder`: a resumed run and every process of a run use the same.
    """
    store = embed_captions(recipe, pairs, device=device, **share)
    if store is None:
        return None
    raw = np.asarray(store.column("text"))
    with cache_lock(f"fit-{sha256_of_json(str(folder.absolute()))[:32]}"):
        _fit(recipe, raw, folder)
    standardiser = Standardiser.load(folder / STANDARDISER)
    if not recipe.objectives.concepts:
        return TextTeacherTargets(raw, standardiser, None, None)
    concepts = Concepts.load(folder / CONCEPTS)
    labels = _soft_labels(concepts, store, f"{pairs.name}-{pairs.split}", **share)
    return TextTeacherTargets(raw, standardiser, concepts, _Labels(labels, recipe))


def _fit(recipe: Recipe, raw: np.ndarray, folder: Path) -> None:
    """Write into `folder` what of the fitted is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / STANDARDISER).is_file():
        assert recipe.text_teacher is not None
        Standardiser.fit(raw, components=recipe.text_teacher.components).save(folder / STANDARDISER)
    if recipe.objectives.concepts and not (folder / CONCEPTS).is_file():
        settings = recipe.concepts
        fit_concepts(
            raw,
            settings.clusters,
            method=settings.method,
            reduce=settings.reduce,
            perplexity=settings.perplexity,
            seed=recipe.seed,
        ).save(folder / CONCEPTS)


def _soft_labels(
    concepts: Concepts, embeddings: TargetStore, name: str, **share: Unpack[Share]
) -> TargetStore:
    """The soft labels of all captions, [T, 2, top]: the likeliest concepts, and their probabilities."""
    raw = embeddings.column("text")
    top = min(TOP, len(concepts.centroids))

    def label(rows: slice) -> tuple[np.ndarray, dict[int, str]]:
        # A concept's number is exact in float32 up to 16 million.
        return np.stack(concepts.soft_labels(raw[rows]), axis=1).astype(np.float32), {}

    return cached(
        {"concepts": concepts.digest, "top": top, "embeddings": embeddings.fingerprint},
        f"{name}-concepts",
        {"label": Column((len(raw), 2, top), "float32", label)},
        batch=ROWS,
        label="concept {} targets",
        **share,
    )


class _Labels:
    """Looks labels up by caption: soft as they are, the likeliest alone, or permuted over the captions."""

    def __init__(self, store: TargetStore, recipe: Recipe) -> None:
        self.store = store
        self.hard = recipe.concepts.labels == "hard"
        self.order = None
        if recipe.concepts.labels == "shuffled":
            self.order = np.random.default_rng(recipe.seed).permutation(len(store.column("label")))

    def __call__(self, captions: np.ndarray) -> Sparse:
        rows = self.store.rows("label", captions if self.order is None else self.order[captions])
        soft = Sparse(rows[:, 0].astype(np.int32), rows[:, 1])
        return Sparse(soft.indices[:, :1], np.ones_like(soft.values[:, :1])) if self.hard else soft
