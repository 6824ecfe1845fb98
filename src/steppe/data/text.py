"""Texts: as bags of words, or as sequences of tokens."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

import jax.numpy as jnp
import numpy as np

from steppe.core import checks
from steppe.core.types import Batch
from steppe.data import tokens as tokens_
from steppe.data.arrays import as_floats
from steppe.data.dataset import Dataset, dataset, subset
from steppe.data.sources import table_of

Rows = dict[str, np.ndarray]
"""Sparse rows, padded: ``{"index": (N, L), "value": (N, L)}``, padding has value 0."""

Texts: TypeAlias = tuple[Sequence[str], np.ndarray]
"""Texts, and a label for each."""

Form: TypeAlias = tuple[list[Any], Callable[[Batch], Batch], tuple[int, ...], str]
"""The examples of both parts, how a batch of them is decoded, the shape of one, and what was done, in words."""


def newsgroups(
    *,
    vocabulary: int = 10_000,
    tokens: int | None = None,
    train_examples: int | None = None,
    test_examples: int | None = None,
) -> Dataset:
    """20 Newsgroups: 11,314 + 7,532 posts in 20 groups, split by date, without headers, footers and quotes.

    Each post is a vector of TF-IDF weights of unit length (scikit-learn's defaults: lower case, words of two or more
    letters, smoothed idf); posts that are empty, 300 + 215, are zero vectors. With `tokens` each post is a sequence of
    the numbers of the same words, in their order. The vocabulary, the most frequent words, and the weights come from
    the training part alone.

    Parameters
    ----------
    vocabulary : int
        The number of words; of tokens, the number of different ones.
    tokens : int, optional
        The length of a sequence: the first so many words of each text. Token 0 fills short texts, 1 is any word
        outside the vocabulary. A transformer, a GRU or an LSTM takes them, with the same `vocabulary` or a larger one.
    train_examples, test_examples : int, optional
        Only so many, drawn by a fixed shuffle.

    Raises
    ------
    InputError
        Settings out of range; data that cannot be had, or are damaged.

    Notes
    -----
    Lang (1995), "NewsWeeder"; Mitchell (1997); ``SetFit/20_newsgroups`` on the hub.
    """
    about = "20 Newsgroups by date, without headers, footers and quotes, Lang 1995"
    sizes = {"train": (11_314, train_examples), "test": (7_532, test_examples)}
    return _public("20newsgroups", "SetFit/20_newsgroups", sizes, 20, vocabulary=vocabulary, tokens=tokens, about=about)


def imdb(
    *,
    vocabulary: int = 10_000,
    tokens: int | None = None,
    train_examples: int | None = None,
    test_examples: int | None = None,
) -> Dataset:
    """IMDB: 25,000 + 25,000 film reviews, negative (0) or positive (1).

    Parameters
    ----------
    vocabulary, tokens, train_examples, test_examples
        See `newsgroups`, also for what is made of a text.

    Raises
    ------
    InputError
        Settings out of range; data that cannot be had, or are damaged.

    Notes
    -----
    Maas et al. (2011), "Learning word vectors for sentiment analysis"; ``stanfordnlp/imdb`` on the hub. 123 texts stand
    in both parts, as in the original.
    """
    sizes = {"train": (25_000, train_examples), "test": (25_000, test_examples)}
    about = "IMDB reviews, Maas et al. 2011"
    return _public("imdb", "stanfordnlp/imdb", sizes, 2, vocabulary=vocabulary, tokens=tokens, about=about)


def _public(
    name: str,
    hub: str,
    sizes: dict[str, tuple[int, int | None]],
    classes: int,
    *,
    vocabulary: int,
    tokens: int | None,
    about: str,
) -> Dataset:
    """A public data set with columns "text" and "label"."""
    check_settings(name, vocabulary, tokens)
    parts = {}
    for part, (rows, count) in sizes.items():
        chosen = subset(name, f"{part}_examples", count, rows)
        table = table_of(name, hub, part, rows, {"text": "strings", "label": "integers"})
        texts = np.array(table.column("text").to_pylist(), dtype=object)[chosen]
        parts[part] = texts.tolist(), table.column("label").to_numpy()[chosen]
    words: Any = {"vocabulary": vocabulary, "tokens": tokens, "about": about}
    return from_texts(name, parts["train"], parts["test"], classes, **words)


def check_settings(name: str, vocabulary: int, tokens: int | None) -> None:
    """Fail for a vocabulary or a length that no text can have."""
    if tokens is None:
        checks.whole(f"data {name}", "vocabulary", vocabulary)
        return
    checks.whole(f"data {name}", "tokens", tokens)
    todo = "Tokens 0 and 1 are padding and unknown words."
    checks.whole(f"data {name}", "vocabulary", vocabulary, least=3, most=2**24, todo=todo)


def from_texts(
    name: str, train: Texts, test: Texts, classes: int, *, vocabulary: int, tokens: int | None, about: str
) -> Dataset:
    """Texts and their labels as a data set, see `newsgroups`; labels are numbers from 0 to classes − 1."""
    about = f"{about}; {len(train[0])} to train and {len(test[0])} to test"
    make = _bags if tokens is None else functools.partial(_sequences, length=tokens)
    parts, decode, shape, words = make(name, [train[0], test[0]], vocabulary)
    pairs = zip(parts, (train[1], test[1]), strict=True)
    return dataset(name, *pairs, decode=decode, shape=shape, classes=classes, about=f"{about}; {words}")


def _bags(name: str, parts: list[Sequence[str]], vocabulary: int) -> Form:
    """TF-IDF weights of the most frequent words, as sparse rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(max_features=vocabulary, dtype=np.float32)
    try:
        matrices = [words.fit_transform(parts[0]), words.transform(parts[1])]
    except ValueError as error:  # scikit-learn's "empty vocabulary"
        _without_words(name, str(error))
    size = len(words.vocabulary_)
    decode: Callable[[Batch], Batch] = lambda batch: {"x": dense(batch["x"], size), "y": batch["y"]}  # noqa: E731
    made = f"TF-IDF of the {size} most frequent words of the training part, rows of unit length"
    return [padded(matrix) for matrix in matrices], decode, (size,), made


def _sequences(name: str, parts: list[Sequence[str]], vocabulary: int, *, length: int) -> Form:
    """The first words of each text, by their numbers in the vocabulary of the training part."""
    from sklearn.feature_extraction.text import CountVectorizer

    words_of = CountVectorizer().build_analyzer()
    known = tokens_.learned(parts[0], vocabulary, words_of)
    if not known:
        _without_words(name, "no vocabulary")
    made = f"the first {length} words as tokens, of the {len(known)} most frequent words of the training part"
    return [tokens_.encoded(texts, known, length, words_of) for texts in parts], as_floats, (length,), made


def _without_words(name: str, error: str) -> NoReturn:
    checks.fail(f"data {name}", "train_examples", "such that some text holds a word", f"a part without ({error})")


def padded(matrix: Any) -> Rows:
    """A SciPy sparse matrix (N, V) as padded rows: a tenth of the dense matrix's memory.

    L, the width, is the fullest row's number of entries; the index is uint16 where V fits, otherwise int32.

    Examples
    --------
    >>> from scipy import sparse
    >>> padded(sparse.csr_matrix([[0.0, 2.0, 3.0], [0.0, 0.0, 0.0]]))["index"]
    array([[1, 2], [0, 0]], dtype=uint16)
    """
    matrix = matrix.tocsr()
    lengths = np.diff(matrix.indptr)
    width = max(int(lengths.max(initial=0)), 1)
    inside = np.arange(width) < lengths[:, None]
    index = np.zeros(inside.shape, np.uint16 if matrix.shape[1] <= 2**16 else np.int32)
    value = np.zeros(inside.shape, np.float32)
    index[inside], value[inside] = matrix.indices, matrix.data
    return {"index": index, "value": value}


def dense(rows: Batch, size: int) -> jnp.ndarray:
    """Padded rows as a matrix (B, size). Entries are added, not set: padding adds 0 to what stands at index 0."""
    count = rows["index"].shape[0]
    which = jnp.arange(count)[:, None]
    index, value = jnp.asarray(rows["index"], jnp.int32), jnp.asarray(rows["value"])
    return jnp.zeros((count, size), value.dtype).at[which, index].add(value)
