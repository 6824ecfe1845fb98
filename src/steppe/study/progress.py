"""What a study tells while it runs, as a bar."""

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from steppe.engines.progress import Watcher


class Bar(Watcher):
    """A progress bar with loss, tr(H²) and the time left; nothing where the console is not a terminal."""

    def __init__(self, console: Console):
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", style="dim", markup=False),
            TimeElapsedColumn(),
            TextColumn("left", style="dim", markup=False),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.progress.add_task("reading data", total=None, state="")

    def __enter__(self) -> Self:
        """Show the bar."""
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self.progress.stop()

    def say(self, text: str) -> None:
        """A line above the bar, or alone where there is none."""
        self.progress.console.print(Text(text), soft_wrap=True)

    def begin(self, epochs: int) -> None:
        """See `Watcher`."""
        self.progress.reset(self.task, total=epochs)

    def stage(self, text: str) -> None:
        """See `Watcher`."""
        self.progress.update(self.task, description=text)

    def epoch(self, loss: float, frobenius_squared: float | None = None) -> None:
        """See `Watcher`."""
        curvature = "" if frobenius_squared is None else f"  tr(H²) {frobenius_squared:.3g}"
        self.progress.update(self.task, advance=1, state=f"loss {loss:.4g}{curvature}")

    def skip(self, epochs: int) -> None:
        """See `Watcher`."""
        self.progress.update(self.task, advance=epochs)

    def points(self, count: int) -> None:
        """See `Watcher`."""
        self.progress.update(self.task, advance=count)
