"""What quantities are called in words, where their names in tables and settings are code."""

import fnmatch
import re

NAMES = ("Brier", "Fisher", "Jensen", "Keskar", "Mirsky", "Takeuchi", "Wolkowicz")
"""Of persons: they keep their capital within a sentence."""

WORDS = {
    "trace": "tr H",
    "frobenius_squared": "tr(H²)",
    "batch_frobenius_squared": "tr(H²) of mini-batches",
    "normalised_curvature": "normalised curvature",
    "wolkowicz_styan_*": "Wolkowicz-Styan bound, {}",
    "mirsky_width": "Mirsky’s bound of λ_max − λ_min",
    "top_eigenvalue_1": "largest eigenvalue",
    "top_eigenvalue_2": "2nd largest eigenvalue",
    "top_eigenvalue_3": "3rd largest eigenvalue",
    "top_eigenvalue_*": "{}th largest eigenvalue",
    "top_eigenvalue": "λ_max",
    "bottom_eigenvalue": "λ_min",
    "spectral_range": "λ_max − λ_min",
    "negative_share": "share of negative eigenvalues",
    "layer_trace.*": "tr H of {}",
    "layer_frobenius_squared.*": "tr(H²) of {}",
    "layer_top_eigenvalue.*": "λ_max of {}",
    "sam_sharpness": "SAM sharpness",
    "keskar_sharpness": "Keskar sharpness",
    "random_sharpness": "random sharpness",
    "fisher_rao": "Fisher-Rao norm",
    "takeuchi_*": "Takeuchi {}",
    "pac_bayes_*": "PAC-Bayes {}",
    "r_squared": "R²",
    "root_mean_squared_error": "RMSE",
    "brier_score": "Brier score",
    "reliability": "largest gap of reliability",
    "temperature": "fitted temperature",
    "scaled_*": "{} after temperature scaling",
    "interval_coverage": "coverage of intervals",
    "interval_score": "score of intervals",
    "interval_error": "calibration error of intervals",
    "aurc": "AURC",
    "excess_aurc": "excess AURC",
    "auroc": "AUROC",
    "fpr_at_recall": "false-positive rate at fixed recall",
    "class_accuracy_*": "accuracy of class {}",
    "accuracy_gap": "accuracy gap",
    "loss_rise_*_bits": "rise of the loss at {} bits",
    "loss_*_bits": "loss at {} bits",
    "accuracy_*_bits": "accuracy at {} bits",
    "loss_rise_pruned_*": "rise of the loss after pruning {} %",
    "loss_pruned_*": "loss after pruning {} %",
    "accuracy_pruned_*": "accuracy after pruning {} %",
    "corruption_accuracy": "accuracy on corrupted inputs",
    "corruption_accuracy_*": "accuracy under {}",
    "noise_accuracy": "accuracy under noise",
    "missing_accuracy": "accuracy with missing values",
    "jensen_shannon": "Jensen-Shannon divergence",
    "linear_cka": "CKA",
    "average_loss": "loss of averaged weights",
    "average_accuracy": "accuracy of averaged weights",
    "*_to_baseline": "{} with the baseline",
}
"""Pattern of names -> words; the first that fits. What the star stands for is put into the braces, in words itself."""


def in_words(quantity: str) -> str:
    """A quantity's name in words, as it stands within a sentence.

    Examples
    --------
    >>> in_words("loss_8_bits"), in_words("scaled_brier_score"), in_words("adaptive_worst_sharpness")
    ('loss at 8 bits', 'Brier score after temperature scaling', 'adaptive worst sharpness')
    """
    name, of, measure = quantity.partition(" of ")
    for pattern, words in WORDS.items():
        if fnmatch.fnmatchcase(name, pattern):
            found = re.fullmatch(re.escape(pattern).replace(r"\*", "(.*)"), name)
            rest = found.groups() if found else ()
            return words.format(*(part if "." in pattern else in_words(part) for part in rest)) + of + measure
    return name.replace("_", " ") + of + measure
