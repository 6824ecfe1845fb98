"""Eigenvalues: densities, and the ends of the spectrum."""
