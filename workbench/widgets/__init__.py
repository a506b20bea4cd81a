"""What a notebook shows that moves or answers."""

from workbench.widgets.cluster_explorer import ClusterExplorer, Grouping
from workbench.widgets.picture_search import PictureSearch
from workbench.widgets.training_monitor import TrainingMonitor

__all__ = ["ClusterExplorer", "Grouping", "PictureSearch", "TrainingMonitor"]
