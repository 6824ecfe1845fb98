"""Networks that a study calls by a name."""
