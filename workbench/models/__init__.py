"""Two-tower models: any open_clip model and the demo's own, and the cross-modal teachers on top of them."""

from workbench.models.condensed import CondensedTeacher
from workbench.models.cross_modal import CrossModalTeacher
from workbench.models.dual_encoder import DualEncoder
from workbench.models.grounded import GroundedTeacher
from workbench.models.loading import load_dual_encoder, shipped_models

__all__ = [
    "CondensedTeacher",
    "CrossModalTeacher",
    "DualEncoder",
    "GroundedTeacher",
    "load_dual_encoder",
    "shipped_models",
]
