"""What a language model says about the training captions: its embeddings, standardised, and concepts."""

from pathlib import Path

import numpy as np
import torch

from workbench.data.pairs import Pairs
from workbench.models.text_teacher import load_text_teacher
from workbench.recipe import Recipe
from workbench.targets.concepts import Concepts, Sparse, fit_concepts
from workbench.targets.standardise import Standardiser
from workbench.targets.text_embeddings import caption_embeddings


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


def text_teacher_targets(recipe: Recipe, pairs: Pairs, folder: Path) -> TextTeacherTargets | None:
    """The text teacher's targets for a recipe's training pairs; None where it has no text teacher.

    Embeddings are cached like every teacher's. What is fitted on them (mean and deviation, concepts) is
    fitted on the training captions alone, once, and kept in `folder`, so that a resumed run and every process
    of a run use the same.
    """
    settings = recipe.text_teacher
    if settings is None or not (recipe.objectives.embedding or recipe.objectives.concepts):
        return None
    with torch.random.fork_rng(devices=[]):  # making a model draws numbers, and the student's go on after it
        teacher = load_text_teacher(
            settings.model,
            pooling=settings.pooling,
            layer=settings.layer,
            allow_download=recipe.allow_download,
        )
    raw = caption_embeddings(teacher, pairs.all_captions, name=f"{pairs.name}-{pairs.split}")
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "standardiser.npz"
    if place.is_file():
        standardiser = Standardiser.load(place)
    else:
        standardiser = Standardiser.fit(raw, components=settings.components)
        standardiser.save(place)
    if not recipe.objectives.concepts:
        return TextTeacherTargets(raw, standardiser, None, None)
    place = folder / "concepts.npz"
    if place.is_file():
        concepts = Concepts.load(place)
    else:
        wanted = recipe.concepts
        concepts = fit_concepts(
            raw,
            wanted.clusters,
            method=wanted.method,
            reduce=wanted.reduce,
            perplexity=wanted.perplexity,
            seed=recipe.seed,
        )
        concepts.save(place)
    return TextTeacherTargets(raw, standardiser, concepts, _labels(concepts, raw, recipe))


def _labels(concepts: Concepts, raw: np.ndarray, recipe: Recipe) -> Sparse:
    """Sparse labels of all captions: soft as they are, the likeliest alone, or dealt to other captions."""
    soft = concepts.soft_labels(raw)
    if recipe.concepts.labels == "hard":
        return Sparse(soft.indices[:, :1], np.ones_like(soft.values[:, :1]))
    if recipe.concepts.labels == "shuffled":
        order = np.random.default_rng(recipe.seed).permutation(len(raw))
        return Sparse(soft.indices[order], soft.values[order])
    return soft
