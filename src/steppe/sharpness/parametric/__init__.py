"""Norms of weights and gradients, and effective numbers of parameters."""
