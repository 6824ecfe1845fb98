"""Criteria, functions of outputs and targets, each a mean over the batch; and the loss that one makes of a network."""

from steppe.core.losses.counting import (
    TokenCrossEntropy,
    WeightedCrossEntropy,
    any_counts,
    count_mask,
    ignoring,
    labels_of,
    next_tokens,
    readable_labels,
    token_cross_entropy,
    weighted_cross_entropy,
)
from steppe.core.losses.criteria import (
    SmoothedCrossEntropy,
    cross_entropies,
    cross_entropy,
    example_losses,
    gaussian_negative_log_likelihood,
    mean_and_log_scale,
    smoothed_cross_entropy,
    squared_error,
    unhinged,
)
from steppe.core.losses.networks import NetworkLoss, of, weight_of
from steppe.core.losses.table import LOSSES, check_targets, is_builtin, sampler
from steppe.core.losses.weights import Weighted, parts_of, shares, weigh, weighted

__all__ = [
    "LOSSES",
    "NetworkLoss",
    "SmoothedCrossEntropy",
    "TokenCrossEntropy",
    "Weighted",
    "WeightedCrossEntropy",
    "any_counts",
    "check_targets",
    "count_mask",
    "cross_entropies",
    "cross_entropy",
    "example_losses",
    "gaussian_negative_log_likelihood",
    "ignoring",
    "is_builtin",
    "labels_of",
    "mean_and_log_scale",
    "next_tokens",
    "of",
    "parts_of",
    "readable_labels",
    "sampler",
    "shares",
    "smoothed_cross_entropy",
    "squared_error",
    "token_cross_entropy",
    "unhinged",
    "weigh",
    "weight_of",
    "weighted",
    "weighted_cross_entropy",
]
