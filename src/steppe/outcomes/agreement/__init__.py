"""Agreement: whether two networks compute the same function."""
