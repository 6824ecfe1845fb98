"""Adaptation: new tasks, and what is left of an old one when a network has learnt them."""
