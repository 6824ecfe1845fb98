"""Layers found in the program of a loss, and what they make cheap."""

from steppe.curvature.layers.detection import (
    INLINED,
    SITES,
    Layer,
    Program,
    find_layers,
    inner,
    program,
    reverse_only,
    through,
    traced,
)

__all__ = [
    "INLINED",
    "SITES",
    "Layer",
    "Program",
    "find_layers",
    "inner",
    "program",
    "reverse_only",
    "through",
    "traced",
]
