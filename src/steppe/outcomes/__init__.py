"""What a network's function does: whether its probabilities are right, whether it knows what it does not know, whether
another network does the same, what it bears, and what it forgets.
"""

from steppe.outcomes.adaptation.forgetting import Forgetting, forgetting
from steppe.outcomes.adaptation.tasks import new_task
from steppe.outcomes.agreement.alignment import align
from steppe.outcomes.agreement.disagreement import churn, disagreement, jensen_shannon
from steppe.outcomes.agreement.similarity import linear_cka
from steppe.outcomes.calibration.binning import Reliability, calibration_error, reliability
from steppe.outcomes.calibration.scoring import brier_score, negative_log_likelihood
from steppe.outcomes.calibration.smooth import smooth_calibration_error
from steppe.outcomes.calibration.temperature import temperature
from steppe.outcomes.compression.precision import LayerPrecision, precision_table
from steppe.outcomes.compression.weights import prune_weights, round_weights
from steppe.outcomes.fairness.classes import class_accuracy, worst_class_accuracy
from steppe.outcomes.forecasts import probabilities
from steppe.outcomes.regression.errors import r_squared, root_mean_squared_error
from steppe.outcomes.regression.intervals import (
    IntervalCalibration,
    interval_calibration,
    interval_coverage,
    interval_score,
    normal_interval,
)
from steppe.outcomes.robustness.adversarial import adversarial_accuracy
from steppe.outcomes.robustness.corruptions.table import CORRUPTIONS, CorruptImages, corrupt, corrupt_images
from steppe.outcomes.robustness.shifts import (
    LabelNoiseFit,
    add_noise,
    drop_values,
    drop_words,
    label_noise_fit,
    misspell,
)  # fmt: skip
from steppe.outcomes.selective.coverage import Coverage, aurc, coverage_curve, excess_aurc
from steppe.outcomes.selective.ranking import auroc, fpr_at_recall
from steppe.outcomes.selective.scores import energy, mahalanobis, maximum_logit, maximum_probability

__all__ = [
    "CORRUPTIONS",
    "CorruptImages",
    "Coverage",
    "Forgetting",
    "IntervalCalibration",
    "LabelNoiseFit",
    "LayerPrecision",
    "Reliability",
    "add_noise",
    "adversarial_accuracy",
    "align",
    "aurc",
    "auroc",
    "brier_score",
    "calibration_error",
    "churn",
    "class_accuracy",
    "corrupt",
    "corrupt_images",
    "coverage_curve",
    "disagreement",
    "drop_values",
    "drop_words",
    "energy",
    "excess_aurc",
    "forgetting",
    "fpr_at_recall",
    "interval_calibration",
    "interval_coverage",
    "interval_score",
    "jensen_shannon",
    "label_noise_fit",
    "linear_cka",
    "mahalanobis",
    "maximum_logit",
    "maximum_probability",
    "misspell",
    "negative_log_likelihood",
    "new_task",
    "normal_interval",
    "precision_table",
    "probabilities",
    "prune_weights",
    "r_squared",
    "reliability",
    "root_mean_squared_error",
    "round_weights",
    "smooth_calibration_error",
    "temperature",
    "worst_class_accuracy",
]
