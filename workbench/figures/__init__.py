"""Plotly figures of arrays and tables. The functions return figures and display nothing."""

from workbench.figures.attention import attention_heatmap, pooling_bars
from workbench.figures.boxes import picture_with_boxes
from workbench.figures.cluster_map import cluster_map
from workbench.figures.comparison import comparison_figure
from workbench.figures.distributions import density_figure, distribution_figure
from workbench.figures.epochs import epochs_figure
from workbench.figures.gallery import Gallery, Picture, gallery
from workbench.figures.lines import line_figure
from workbench.figures.parallel import parallel_figure
from workbench.figures.pareto import ParetoPoint, pareto_figure
from workbench.figures.region_names import RegionName
from workbench.figures.reliability import reliability_figure
from workbench.figures.sensitivity import sensitivity_figure
from workbench.figures.sphere import Descent, sphere_figure
from workbench.figures.student_over_time import evolution_figure, similarity_figure
from workbench.figures.training import training_figure
from workbench.figures.training_panels import Curves

__all__ = [
    "Curves",
    "Descent",
    "Gallery",
    "ParetoPoint",
    "Picture",
    "RegionName",
    "attention_heatmap",
    "cluster_map",
    "comparison_figure",
    "density_figure",
    "distribution_figure",
    "epochs_figure",
    "evolution_figure",
    "gallery",
    "line_figure",
    "parallel_figure",
    "pareto_figure",
    "picture_with_boxes",
    "pooling_bars",
    "reliability_figure",
    "sensitivity_figure",
    "similarity_figure",
    "sphere_figure",
    "training_figure",
]
