"""Losses: pure functions of embeddings, and their weighted mixture."""

from workbench.objectives.combined import DistillationLoss
from workbench.objectives.concepts import ConceptClassifier, concept_loss
from workbench.objectives.contrastive import contrastive_loss
from workbench.objectives.feature import cosine_distillation, feature_distillation
from workbench.objectives.fused import fused_contrastive_loss
from workbench.objectives.gradient import gradient_distillation
from workbench.objectives.interactive import interactive_contrastive_loss
from workbench.objectives.regression import embedding_regression
from workbench.objectives.relational import relational_distillation

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
    "interactive_contrastive_loss",
    "relational_distillation",
]
