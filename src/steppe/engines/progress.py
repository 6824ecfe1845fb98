"""What is told of a long computation while it runs."""

import warnings


class Watcher:
    """Is told what happens; this one keeps it to itself."""

    def begin(self, epochs: int) -> None:
        """So many epochs are to be trained over all runs, or so many points of a landscape computed."""

    def stage(self, text: str) -> None:
        """Something begins."""

    def epoch(self, loss: float, frobenius_squared: float | None = None) -> None:
        """An epoch of a run is over; trials of a tuned study are not asked for tr(H²)."""

    def skip(self, epochs: int) -> None:
        """So many epochs need no training: already done, or no longer wanted."""

    def points(self, count: int) -> None:
        """So many more points of a landscape are known."""

    def say(self, text: str) -> None:
        """Something that the user must know, in a sentence: here a warning."""
        warnings.warn(text, stacklevel=3)
