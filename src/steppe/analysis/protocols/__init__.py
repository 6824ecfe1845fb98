"""What others claim of the same quantities."""
