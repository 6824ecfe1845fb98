"""The quantities of a study, and which of them are tested against what.

The families of tests are declared here, before any data: final test accuracy, best test accuracy, where there is a
validation part that at the epoch which it selects, and tr(H²) at the end,
each condition against the baseline, Holm-corrected over the conditions of one quantity; and, where conditions name a
control, test accuracy and test loss against that, corrected over the conditions that do. tr(H²) spans orders of
magnitude, so it is tested, and given its interval, on the scale of its logarithm.
"""

import math
from typing import NamedTuple

from steppe.core import checks
from steppe.measures.registry import OF_PREDICTIONS


class Quantity(NamedTuple):
    """What is compared between conditions.

    Attributes
    ----------
    name : str
        In code and tables.
    label : str
        In words.
    unit : str
        "share", "nats", "s", …; empty for none.
    log : bool
        Whether logarithms are compared.
    direction : str
        What a lower or a higher value means, where that is no matter of course.
    family : str
        That of the measure which gives it, see `measures.registry`; empty where neither end of its scale is flatter or
        better, and for what is no measure's.
    """

    name: str
    label: str
    unit: str = ""
    log: bool = False
    direction: str = ""
    family: str = ""

    @property
    def is_outcome(self) -> bool:
        """Whether it tells what a network predicts, so that a condition can help it."""
        return self.family in OF_PREDICTIONS

    @property
    def is_sharpness(self) -> bool:
        """Whether it tells how flat a minimum is."""
        return bool(self.family) and not self.is_outcome

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower value is the better one."""
        return "loss" in self.name or "error" in self.name or self.direction.startswith("lower")

    def margin(self, declared: float | None) -> float:
        """A declared margin on the scale that is compared: itself, or the logarithm of a factor; NaN for none."""
        if declared is None:
            return math.nan
        return math.log(declared) if self.log else declared

    def check_margin(self, name: str, declared: float) -> None:
        """Fail where a margin is none for this quantity.

        Raises
        ------
        InputError
            A factor that is not above 1, a share of 1 or more, or a number that is not positive.
        """
        if self.log and not 1 < declared < math.inf:
            checks.fail("study", name, "a factor above 1, for ratios are what is compared", declared,
                        "1.1 means: ratios between 1/1.1 and 1.1 do not matter.")  # fmt: skip
        if not 0 < declared < math.inf:
            checks.fail("study", name, "a positive number, the smallest difference that matters", declared)
        if self.unit == "share" and declared >= 1:
            checks.fail("study", name, "a share below 1", declared, "0.01 is one percentage point.")


LOWER_IS_FLATTER = "lower is flatter"

TR_H2, AVERAGE_TR_H2 = "batch_frobenius_squared", "average_batch_frobenius_squared"
"""The columns of tr(H²): at the end of training (in a history: after an epoch), and its mean over measured epochs."""

FITTED_LOSS = "train_loss"
"""The column of a history that holds the cross-entropy of training examples, without dropout."""

QUANTITIES: dict[str, Quantity] = {
    quantity.name: quantity
    for quantity in (
        Quantity("test_accuracy", "Final test accuracy", "share", family="fit"),
        Quantity("best_test_accuracy", "Best test accuracy", "share", family="fit"),
        Quantity("selected_test_accuracy", "Test accuracy at the best validation epoch", "share", family="fit"),
        Quantity("validation_accuracy", "Final validation accuracy", "share", family="fit"),
        Quantity("test_r_squared", "Final test R²", family="fit"),
        Quantity("validation_r_squared", "Final validation R²", family="fit"),
        Quantity("train_r_squared", "Final train R²", family="fit"),
        Quantity("train_accuracy", "Final train accuracy", "share", family="fit"),
        Quantity(AVERAGE_TR_H2, "Average tr(H²)", "", log=True, direction=LOWER_IS_FLATTER, family="curvature"),
        Quantity(TR_H2, "Final tr(H²)", "", log=True, direction=LOWER_IS_FLATTER, family="curvature"),
        Quantity("top_eigenvalue", "λ_max", "", log=True, direction=LOWER_IS_FLATTER, family="curvature"),
        Quantity("bottom_eigenvalue", "λ_min", ""),
        Quantity("spectral_range", "λ_max − λ_min", "", log=True, direction=LOWER_IS_FLATTER, family="curvature"),
        Quantity("train_loss", "Final train loss", "nats", family="fit"),
        Quantity("validation_loss", "Final validation loss", "nats", family="fit"),
        Quantity("test_loss", "Final test loss", "nats", family="fit"),
        Quantity("selected_test_loss", "Test loss at the best validation epoch", "nats", family="fit"),
        Quantity("train_seconds", "Training time", "s"),
        Quantity("compile_seconds", "Compile time", "s"),
        Quantity("measure_seconds", "Measuring time", "s"),
        Quantity("step_memory_mb", "Memory of a step", "MB"),
    )
}
"""Every quantity that is summarised."""

TRACED: dict[str, Quantity] = {
    "trace": Quantity("trace", "tr H", "", direction=LOWER_IS_FLATTER, family="curvature"),
    "frobenius_squared": Quantity(
        "frobenius_squared", "tr(H²) of training examples", "", True, LOWER_IS_FLATTER, "curvature"
    ),
}
"""What tracking gives besides the ends of the spectrum; summarised where a margin is declared for it."""

ACCURACIES = ("test_accuracy", "best_test_accuracy", "train_accuracy")
"""What studies of classes have, and regressions have not."""

REGRESSED = ("test_r_squared", "validation_r_squared", "train_r_squared", "selected_test_loss")
"""What only regressions have."""

VALIDATED = ("selected_test_accuracy", "selected_test_loss", "validation_accuracy", "validation_loss",
             "validation_r_squared")  # fmt: skip
"""What only studies with a validation part have."""

OPTIONAL = {*ACCURACIES, *REGRESSED, *VALIDATED}
"""What a study has where its columns are there."""

TESTED = ("test_accuracy", "best_test_accuracy", "selected_test_accuracy", TR_H2)
"""What is tested against the baseline, where it is there, besides what a margin is declared for."""

REGRESSION_TESTED = ("test_loss", "selected_test_loss", TR_H2)
"""The same of a regression."""

CONTROLLED = ("test_accuracy", "test_loss")
"""What is tested against a condition's control, besides what a study declares; each a family of tests of its own."""

OUTCOMES = (
    "test_accuracy",
    "best_test_accuracy",
    "selected_test_accuracy",
    "test_r_squared",
    "selected_test_loss",
    AVERAGE_TR_H2,
    TR_H2,
    "train_seconds",
)
LOSSES = ("train_loss", "validation_loss", "test_loss", "train_accuracy", "validation_accuracy", "train_r_squared",
          "validation_r_squared")  # fmt: skip
SPECTRUM = ("top_eigenvalue", "bottom_eigenvalue", "spectral_range")
PUBLISHED = ("test_accuracy", "best_test_accuracy", AVERAGE_TR_H2, "train_seconds")
COST = ("train_seconds", "compile_seconds", "measure_seconds", "step_memory_mb")
"""What is shown together."""
