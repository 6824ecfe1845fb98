"""What is asked: a study as data."""
