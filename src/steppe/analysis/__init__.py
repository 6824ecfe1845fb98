"""What the numbers say: statistics over seeds, comparisons, and verdicts."""
