"""Two-tower models: any open_clip model, and the demo's own; the cross-modal teacher above them."""

from workbench.models.cross_modal import CrossModalTeacher
from workbench.models.dual_encoder import DualEncoder
from workbench.models.loading import load_dual_encoder, shipped_models

__all__ = ["CrossModalTeacher", "DualEncoder", "load_dual_encoder", "shipped_models"]
