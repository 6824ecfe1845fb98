"""How flat is a trained network?"""

from steppe.sharpness.landscape import filter_normalised, surface

__all__ = ["filter_normalised", "surface"]
