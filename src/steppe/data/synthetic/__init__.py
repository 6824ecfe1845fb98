"""What is drawn from a known rule: two classes in the plane, values of test functions, labels without a meaning."""

from steppe.data.synthetic.labels import with_random_labels
from steppe.data.synthetic.objectives import objective
from steppe.data.synthetic.planar import circles, moons

__all__ = ["circles", "moons", "objective", "with_random_labels"]
