"""Texts as sequences of tokens: the numbers of their words, in their order."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

PADDING, UNKNOWN = 0, 1
"""Tokens that stand for no word of the vocabulary: what fills a short text, and a word that is not known."""

Analyzer = Callable[[str], list[str]]
"""The words of a text."""


def learned(texts: Sequence[str], size: int, words_of: Analyzer) -> dict[str, int]:
    """The vocabulary of some texts: their most frequent words, each with its token.

    Parameters
    ----------
    texts : sequence of str
        To learn from.
    size : int
        How many tokens there may be, padding and the unknown word among them.
    words_of : callable
        The words of a text.

    Returns
    -------
    dict[str, int]
        Tokens from 2 on, by falling frequency; of words that are as frequent, the first in alphabetical order comes
        first.

    Examples
    --------
    >>> learned(["the cat", "the dog", "a cat"], 4, str.split)
    {'cat': 2, 'the': 3}
    """
    counts = Counter(word for text in texts for word in words_of(text))
    frequent = sorted(counts, key=lambda word: (-counts[word], word))
    return {word: token for token, word in enumerate(frequent[: size - UNKNOWN - 1], start=UNKNOWN + 1)}


def encoded(texts: Sequence[str], vocabulary: dict[str, int], length: int, words_of: Analyzer) -> np.ndarray:
    """The first words of each text as tokens.

    Parameters
    ----------
    texts : sequence of str
        N texts.
    vocabulary : dict[str, int]
        Tokens by word, see `learned`.
    length : int
        T, the words that are kept; shorter texts are filled with `PADDING` at their end.
    words_of : callable
        The words of a text.

    Returns
    -------
    numpy.ndarray
        (N, T), uint16 where the vocabulary allows, otherwise int32.

    Examples
    --------
    >>> encoded(["the cat sat", ""], {"cat": 2, "the": 3}, 4, str.split)
    array([[3, 2, 1, 0], [0, 0, 0, 0]], dtype=uint16)
    """
    tokens = np.full((len(texts), length), PADDING, np.uint16 if len(vocabulary) + 2 <= 2**16 else np.int32)
    for row, text in enumerate(texts):
        words = words_of(text)[:length]
        tokens[row, : len(words)] = [vocabulary.get(word, UNKNOWN) for word in words]
    return tokens
