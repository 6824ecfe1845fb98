"""Selective prediction: whether a network knows what it does not know."""
