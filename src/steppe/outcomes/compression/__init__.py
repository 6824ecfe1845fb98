"""Compression: what rounding and pruning of the weights do."""
