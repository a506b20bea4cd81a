"""Losses as pure functions of embeddings, one a file, and their weighted sum. Imported on first use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.objectives.combined import DistillationLoss
    from workbench.objectives.concepts import ConceptClassifier, concept_loss
    from workbench.objectives.contrastive import contrastive_loss
    from workbench.objectives.feature import cosine_distillation, feature_distillation
    from workbench.objectives.fused import fused_contrastive_loss
    from workbench.objectives.gradient import gradient_distillation
    from workbench.objectives.interactive import interactive_contrastive_loss
    from workbench.objectives.regression import embedding_regression
    from workbench.objectives.relational import image_relations, relational_distillation

# Recipes read the registry in this folder, and reading a recipe must not import torch.
_FILES = {
    "ConceptClassifier": "concepts",
    "DistillationLoss": "combined",
    "concept_loss": "concepts",
    "contrastive_loss": "contrastive",
    "cosine_distillation": "feature",
    "embedding_regression": "regression",
    "feature_distillation": "feature",
    "fused_contrastive_loss": "fused",
    "gradient_distillation": "gradient",
    "image_relations": "relational",
    "interactive_contrastive_loss": "interactive",
    "relational_distillation": "relational",
}

__all__ = [
    "ConceptClassifier",
    "DistillationLoss",
    "concept_loss",
    "contrastive_loss",
    "cosine_distillation",
    "embedding_regression",
    "feature_distillation",
    "fused_contrastive_loss",
    "gradient_distillation",
    "image_relations",
    "interactive_contrastive_loss",
    "relational_distillation",
]


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FILES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FILES})
