"""Sentences, made of typed values, and the only place where they are made of verdicts; no code reads one back."""
