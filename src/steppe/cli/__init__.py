"""The command ``steppe``."""

from steppe.cli.entry import main

__all__ = [
    "main",
]
