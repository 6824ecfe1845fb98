"""Data drawn from a known rule: two classes in the plane, and surfaces that optimisers are tested on."""

from steppe.data.synthetic.objectives import objective
from steppe.data.synthetic.planar import circles, moons

__all__ = ["circles", "moons", "objective"]
