"""A user's own functions by ``module:function``, wherever a study or a command names something."""

from steppe.extensions.functions import any_loaded, function, is_function, source

__all__ = ["any_loaded", "function", "is_function", "source"]
