"""What a notebook shows that moves or answers."""

from workbench.widgets.picture_search import PictureSearch
from workbench.widgets.training_monitor import TrainingMonitor

__all__ = ["PictureSearch", "TrainingMonitor"]
