"""Arrays and tables in, figures out; displays nothing."""

from workbench.figures.cluster_map import cluster_map
from workbench.figures.comparison import comparison_figure
from workbench.figures.distributions import distribution_figure
from workbench.figures.gallery import Gallery, Picture, gallery
from workbench.figures.lines import line_figure
from workbench.figures.sphere import Descent, sphere_figure
from workbench.figures.training import training_figure
from workbench.figures.training_panels import Curves

__all__ = [
    "Curves",
    "Descent",
    "Gallery",
    "Picture",
    "cluster_map",
    "comparison_figure",
    "distribution_figure",
    "gallery",
    "line_figure",
    "sphere_figure",
    "training_figure",
]
