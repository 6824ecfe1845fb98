"""What a user's function computes, captured as a program.

A function may close over what changes: a list, a trainer, statistics of BatchNorm. Compiled programs that are looked up
by the function would then give the numbers of its first call again. So Steppe captures, once at the entry of each
public function, what a function computes *now*: its program, and the arrays in it. Programs are compared by what they
compute, and their arrays are arguments of compiled functions, whatever their size: equal programs compile once, and
nothing that changes afterwards is in them.
"""

from steppe.core.programs.capturing import capture, check, full_precision, unchanging, untraced
from steppe.core.programs.compiling import compiled, jit, label_of
from steppe.core.programs.devices import ends_with_sum
from steppe.core.programs.errors import Label, UncapturedShapes, explain, line, require_value, user_errors
from steppe.core.programs.fingerprints import fresh
from steppe.core.programs.program import Program, holder, is_captured, is_program

__all__ = [
    "Label", "Program", "UncapturedShapes", "capture", "check", "compiled", "ends_with_sum", "explain", "fresh",
    "full_precision", "holder", "is_captured", "is_program", "jit", "label_of", "line", "require_value", "unchanging",
    "untraced", "user_errors",
]  # fmt: skip
