"""Two-tower models: any open_clip model, and the demo's own."""

from workbench.models.dual_encoder import DualEncoder
from workbench.models.loading import load_dual_encoder, shipped_models

__all__ = ["DualEncoder", "load_dual_encoder", "shipped_models"]
