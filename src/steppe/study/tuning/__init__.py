"""The best settings of each condition, found on the validation part with the same budget."""
