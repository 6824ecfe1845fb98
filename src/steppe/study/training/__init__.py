"""One run: what is trained, measured and kept."""
