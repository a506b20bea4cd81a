"""What a language model says about the training captions: its embeddings, standardised, and concepts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from workbench.data.pairs import Pairs
from workbench.recipe import Recipe
from workbench.targets.concepts import Concepts, Sparse, fit_concepts
from workbench.targets.standardise import Standardiser
from workbench.targets.text_embeddings import text_teacher_embeddings

STANDARDISER, CONCEPTS = "standardiser.npz", "concepts.npz"


class TextTeacherTargets:
    """Targets by position of the caption among all captions; nothing is held that can be looked up."""

    def __init__(
        self,
        raw: np.ndarray,
        standardiser: Standardiser,
        concepts: Concepts | None,
        labels: Sparse | None,
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
        return Sparse(*(side[captions] for side in self.labels)).dense(len(self.concepts.centroids))


def text_teacher_targets(
    recipe: Recipe,
    pairs: Pairs,
    folder: Path,
    *,
    wait: Callable[[], object] = lambda: None,
    device: Any = "cpu",
    rank: int = 0,
    world: int = 1,
) -> TextTeacherTargets | None:
    """The text teacher's targets for a recipe's training pairs; None where it has no text teacher.

    Embeddings are cached like every teacher's, and filled by all processes. What is fitted on them (mean and
    deviation, concepts) is fitted on the training captions alone, once, by the first process, and kept in
    `folder`, so that a resumed run and every process of a run use the same.
    """
    settings = recipe.text_teacher
    if settings is None or not (recipe.objectives.embedding or recipe.objectives.concepts):
        return None
    with torch.random.fork_rng(devices=[]):  # making a model draws numbers, and the student's go on after it
        raw = text_teacher_embeddings(
            settings,
            pairs.all_captions,
            name=f"{pairs.name}-{pairs.split}",
            allow_download=recipe.allow_download,
            device=device,
            rank=rank,
            world=world,
        )
    if rank == 0:
        _fit(recipe, raw, folder)
    wait()
    standardiser = Standardiser.load(folder / STANDARDISER)
    if not recipe.objectives.concepts:
        return TextTeacherTargets(raw, standardiser, None, None)
    concepts = Concepts.load(folder / CONCEPTS)
    return TextTeacherTargets(raw, standardiser, concepts, _labels(concepts, raw, recipe))


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


def _labels(concepts: Concepts, raw: np.ndarray, recipe: Recipe) -> Sparse:
    """Sparse labels of all captions: soft as they are, the likeliest alone, or permuted over the captions."""
    soft = concepts.soft_labels(raw)
    if recipe.concepts.labels == "hard":
        return Sparse(soft.indices[:, :1], np.ones_like(soft.values[:, :1]))
    if recipe.concepts.labels == "shuffled":
        order = np.random.default_rng(recipe.seed).permutation(len(raw))
        return Sparse(soft.indices[order], soft.values[order])
    return soft
