"""Estimates from random vectors: moments, traces, diagonals."""
