"""What a network's function does, a file for each kind of question."""
