"""How tests of properties draw their cases: few, the same every time, and without a clock."""

from hypothesis import settings

cheap = settings(max_examples=40, derandomize=True, deadline=None, database=None)
