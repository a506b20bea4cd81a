"""Losses: pure functions of embeddings, and their weighted mixture."""

from workbench.objectives.contrastive import contrastive_loss
from workbench.objectives.feature import cosine_distillation, feature_distillation
from workbench.objectives.interactive import interactive_contrastive_loss
from workbench.objectives.mixture import Mixture
from workbench.objectives.relational import relational_distillation

__all__ = [
    "Mixture",
    "contrastive_loss",
    "cosine_distillation",
    "feature_distillation",
    "interactive_contrastive_loss",
    "relational_distillation",
]
