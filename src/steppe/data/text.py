"""Texts as bags of words."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from steppe.core import checks
from steppe.core.types import Batch
from steppe.data.dataset import Dataset, dataset, subset
from steppe.data.sources import table_of

Rows = dict[str, np.ndarray]
"""Sparse rows, padded: ``{"index": (N, L), "value": (N, L)}``, padding has value 0."""


def newsgroups(
    *, vocabulary: int = 10_000, train_examples: int | None = None, test_examples: int | None = None
) -> Dataset:
    """20 Newsgroups: 11,314 + 7,532 posts in 20 groups, split by date, without headers, footers and quotes.

    Each post is a vector of TF-IDF weights of unit length (scikit-learn's defaults: lower case, words of two or more
    letters, smoothed idf). The vocabulary, the most frequent words, and the weights come from the training part alone.
    Posts that are empty, 300 + 215, are zero vectors.

    Parameters
    ----------
    vocabulary : the number of words.
    train_examples, test_examples : only so many, drawn by a fixed shuffle.

    Raises
    ------
    InputError : settings out of range; data that cannot be had, or are damaged.

    Notes
    -----
    Lang (1995), "NewsWeeder"; Mitchell (1997); ``SetFit/20_newsgroups`` on the hub.
    """
    about = "20 Newsgroups by date, without headers, footers and quotes, Lang 1995"
    sizes = {"train": (11_314, train_examples), "test": (7_532, test_examples)}
    return _bag_of_words("20newsgroups", "SetFit/20_newsgroups", sizes, 20, vocabulary, about)


def imdb(*, vocabulary: int = 10_000, train_examples: int | None = None, test_examples: int | None = None) -> Dataset:
    """IMDB: 25,000 + 25,000 film reviews, negative (0) or positive (1).

    Parameters
    ----------
    vocabulary, train_examples, test_examples : see `newsgroups`, also for what is made of a text.

    Raises
    ------
    InputError : settings out of range; data that cannot be had, or are damaged.

    Notes
    -----
    Maas et al. (2011), "Learning word vectors for sentiment analysis"; ``stanfordnlp/imdb`` on the hub. 123 texts stand
    in both parts, as in the original.
    """
    sizes = {"train": (25_000, train_examples), "test": (25_000, test_examples)}
    return _bag_of_words("imdb", "stanfordnlp/imdb", sizes, 2, vocabulary, "IMDB reviews, Maas et al. 2011")


def _bag_of_words(
    name: str, hub: str, sizes: dict[str, tuple[int, int | None]], classes: int, vocabulary: int, about: str
) -> Dataset:
    from sklearn.feature_extraction.text import TfidfVectorizer

    checks.whole(f"data {name}", "vocabulary", vocabulary)
    texts, labels = {}, {}
    for part, (rows, count) in sizes.items():
        chosen = subset(name, f"{part}_examples", count, rows)
        table = table_of(name, hub, part, rows, {"text": "strings", "label": "integers"})
        texts[part] = np.array(table.column("text").to_pylist(), dtype=object)[chosen]
        labels[part] = table.column("label").to_numpy()[chosen]
    words = TfidfVectorizer(max_features=vocabulary, dtype=np.float32)
    try:
        matrices = {"train": words.fit_transform(texts["train"]), "test": words.transform(texts["test"])}
    except ValueError as error:  # scikit-learn's "empty vocabulary"
        checks.fail(f"data {name}", "train_examples", "such that some text holds a word", f"a part without ({error})")
    size = len(words.vocabulary_)
    return dataset(
        name,
        **{part: (padded(matrix), labels[part]) for part, matrix in matrices.items()},
        decode=lambda batch: {"x": dense(batch["x"], size), "y": batch["y"]},
        shape=(size,),
        classes=classes,
        about=f"{about}; {len(texts['train'])} to train and {len(texts['test'])} to test; TF-IDF of the {size} most "
        "frequent words of the training part, rows of unit length",
    )


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
