"""Evaluates models: retrieval, zero-shot classification, probes, and intervals for their results."""

from workbench.evaluation.agreement import neighbour_overlap, teacher_agreement
from workbench.evaluation.attributes.protocols import (
    AttributePrediction,
    ByAttributes,
    ByClassName,
    attribute_prediction,
    attributes_only_accuracy,
    class_name_accuracy,
)
from workbench.evaluation.calibration import calibrated_scale, calibration_curve, retrieval_confidence
from workbench.evaluation.efficiency import Efficiency, model_efficiency
from workbench.evaluation.probes.composition import Swap, swap_accuracy
from workbench.evaluation.retrieval.metrics import Direction, Retrieval, retrieval_folds, retrieval_metrics
from workbench.evaluation.significance import (
    CrossedDifference,
    Interval,
    PairedDifference,
    bootstrap_interval,
    crossed_interval,
    paired_bootstrap,
)
from workbench.evaluation.similarity import (
    Distributions,
    effective_rank,
    mean_cosine,
    modality_gap,
    pca_floor,
    readout_r2,
    readout_r2_interval,
    similarity_distributions,
)
from workbench.evaluation.zero_shot.metrics import ZeroShot, zero_shot_metrics, zero_shot_weights

__all__ = [
    "AttributePrediction",
    "ByAttributes",
    "ByClassName",
    "CrossedDifference",
    "Direction",
    "Distributions",
    "Efficiency",
    "Interval",
    "PairedDifference",
    "Retrieval",
    "Swap",
    "ZeroShot",
    "attribute_prediction",
    "attributes_only_accuracy",
    "bootstrap_interval",
    "calibrated_scale",
    "calibration_curve",
    "class_name_accuracy",
    "crossed_interval",
    "effective_rank",
    "mean_cosine",
    "modality_gap",
    "model_efficiency",
    "neighbour_overlap",
    "paired_bootstrap",
    "pca_floor",
    "readout_r2",
    "readout_r2_interval",
    "retrieval_confidence",
    "retrieval_folds",
    "retrieval_metrics",
    "similarity_distributions",
    "swap_accuracy",
    "teacher_agreement",
    "zero_shot_metrics",
    "zero_shot_weights",
]
