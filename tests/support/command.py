"""The command as a shell calls it."""

import sys

from steppe import cli


def run(monkeypatch, capsys, *arguments):
    """(exit status, standard output, standard error) of a command."""
    monkeypatch.setattr(sys, "argv", ["steppe", *map(str, arguments)])
    try:
        cli.main()
        status = 0
    except SystemExit as stop:
        status = stop.code
    return status, *capsys.readouterr()
