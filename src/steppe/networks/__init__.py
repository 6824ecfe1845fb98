"""Trained networks: those of finished runs, and a user's own."""
