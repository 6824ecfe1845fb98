"""The metrics of a study, and which of them are tested against the baseline.

The family of tests is declared here, before any data: final test accuracy, best test accuracy and final flatness, each
condition against the baseline, Holm-corrected over the conditions of one metric; and, where conditions name a rival,
test accuracy and test loss against that, corrected over the conditions that do. Flatness tr(H²) spans orders of
magnitude, so it is tested, and given its interval, on the scale of its logarithm.
"""

from typing import Literal, NamedTuple

Unit = Literal["share", "nats", "tr(H²)", "λ", "s", "MB"]


class Metric(NamedTuple):
    """A column of the results: what it is called, its unit, and whether its logarithm is what is compared."""

    name: str
    label: str
    unit: Unit
    log: bool = False


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("test_accuracy", "Final test accuracy", "share"),
        Metric("best_test_accuracy", "Best test accuracy", "share"),
        Metric("train_accuracy", "Final train accuracy", "share"),
        Metric("average_flatness", "Average flatness", "tr(H²)", log=True),
        Metric("flatness", "Final flatness", "tr(H²)", log=True),
        Metric("top_eigenvalue", "λ_max", "λ", log=True),
        Metric("bottom_eigenvalue", "λ_min", "λ"),
        Metric("spectral_range", "λ_max − λ_min", "λ", log=True),
        Metric("train_loss", "Final train loss", "nats"),
        Metric("test_loss", "Final test loss", "nats"),
        Metric("train_seconds", "Training time", "s"),
        Metric("compile_seconds", "Compile time", "s"),
        Metric("measure_seconds", "Measuring time", "s"),
        Metric("step_memory_mb", "Memory of a step", "MB"),
    )
}
"""Every metric that is summarised."""

RIVALRY = ("test_accuracy", "test_loss")
"""The metrics that are tested against a condition's rival, a family of tests of its own."""

TESTED = ("test_accuracy", "best_test_accuracy", "flatness")
"""The metrics that are tested against the baseline."""
