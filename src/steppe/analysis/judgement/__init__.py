"""Two samples over seeds, judged: how is declared in advance, compared by every test, and told by a verdict."""
