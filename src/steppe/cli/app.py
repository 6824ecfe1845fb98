"""The commands together, and their one parser."""

import importlib.metadata
import os
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from steppe.cli.commands.correlate import correlate
from steppe.cli.commands.landscape import landscape
from steppe.cli.commands.list import list_
from steppe.cli.commands.measure import measure
from steppe.cli.commands.report import report
from steppe.cli.commands.run import run
from steppe.cli.commands.show import show
from steppe.cli.commands.track import track
from steppe.cli.commands.watch import watch
from steppe.core import process
from steppe.core.checks import InputError
from steppe.storage.compilation import cache_programs

COMMANDS: dict[str, Callable[..., None]] = {
    "run": run,
    "report": report,
    "show": show,
    "watch": watch,
    "track": track,
    "measure": measure,
    "landscape": landscape,
    "correlate": correlate,
    "list": list_,
}

COMPILING = ("run", "measure", "landscape")
"""Commands that compile."""

COMPLETE = "_STEPPE_COMPLETE"
"""The variable by which a shell asks for completions."""

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"steppe {importlib.metadata.version('steppe')}")
        raise typer.Exit


@app.callback()
def steppe(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    """Train neural networks towards flat minima, measure how flat they are, and find out whether it helped."""
    if context.invoked_subcommand in COMPILING:
        cache_programs()


for _name, _command in COMMANDS.items():
    app.command(name=_name)(_command)


def _short(message: str, word: int = 60, most: int = 400) -> str:
    """A message of the parser on one line, in which what a user typed is not too long to read."""
    message = " ".join(part if len(part) <= word else f"{part[: word - 3]}..." for part in message.split())
    return message if len(message) <= most else f"{message[:most]}..."


def invoke(arguments: Sequence[str]) -> int:
    """Run the command that some words say; the status with which it ends.

    The parser's own ``main`` is passed by: it swallows KeyboardInterrupt and errors of output.

    Raises
    ------
    OSError, KeyboardInterrupt : see `cli.main`, which says what happened.
    """
    command = typer.main.get_command(app)
    if COMPLETE in os.environ:
        command.main(prog_name="steppe")  # answers the shell, and ends the process
    try:
        with command.make_context("steppe", list(arguments) or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except InputError as error:
        process.say(str(error))
        return 2
    except Exception as error:
        if not hasattr(error, "format_message"):  # otherwise a mistake in the command's words, found by the parser
            raise
        message = _short(error.format_message())
        process.say(f"{message}{'' if message.endswith(('.', '?')) else '.'} Try 'steppe --help'.")
        return 2
    return 0
