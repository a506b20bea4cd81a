"""Interactive views for notebooks."""

from workbench.widgets.attention_example import AttentionExample
from workbench.widgets.attention_explorer import AttentionExplorer
from workbench.widgets.cluster_explorer import ClusterExplorer, Grouping
from workbench.widgets.picture_search import PictureSearch
from workbench.widgets.run_browser import RunBrowser
from workbench.widgets.training_monitor import TrainingMonitor

__all__ = [
    "AttentionExample",
    "AttentionExplorer",
    "ClusterExplorer",
    "Grouping",
    "PictureSearch",
    "RunBrowser",
    "TrainingMonitor",
]
