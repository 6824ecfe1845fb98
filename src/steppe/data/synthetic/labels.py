"""Labels drawn at random, once and for good."""

import dataclasses

import jax
import numpy as np

from steppe.core import checks
from steppe.data.dataset import Dataset, fingerprint


def with_random_labels(data: Dataset, share: float, seed: int = 0) -> Dataset:
    """The same data with the labels of some training examples drawn uniformly from all classes, to be memorised.

    Each training example is chosen with probability `share`, and its label may be drawn as it was: of K classes a share
    of (1 − 1/K) · `share` is expected to be wrong. The test part stays as it is, and so does a validation part.

    Parameters
    ----------
    data : Dataset
        Of classes.
    share : float
        The probability that a label is drawn, from 0 to 1.
    seed : int
        Of the draw.

    Returns
    -------
    Dataset
        With another fingerprint, whose part `clean` holds the training examples with the labels that they came with.

    Raises
    ------
    InputError
        A share or a seed out of range; real targets, or several labels an example; labels that were drawn already.

    Notes
    -----
    Zhang et al. (2017), "Understanding deep learning requires rethinking generalization". `label_noise` among the
    transforms draws anew at every step instead, so that nothing can be memorised.

    Examples
    --------
    >>> from steppe import data
    >>> moons = data.load("moons", random_labels=1.0)
    >>> bool(25 < (moons.train["y"] != moons.clean["y"]).sum() < 75)
    True
    """
    where = f"data {data.name}"
    checks.real(where, "random_labels", share, least=0.0, most=1.0)
    checks.whole(where, "random_labels_seed", seed, least=0, most=2**32 - 1)
    labels = np.asarray(data.train["y"])
    if data.clean is not None:
        checks.fail(where, "random_labels", "left out for data whose labels were drawn already", checks.shown(share))
    if not data.classes or labels.ndim != 1:
        checks.fail(where, "random_labels", "left out for targets that are no single class", checks.shown(share))
    rng = np.random.default_rng(seed)
    chosen = rng.uniform(size=labels.shape) < share
    drawn = np.where(chosen, rng.integers(data.classes, size=labels.shape), labels).astype(labels.dtype)
    train = {**data.train, "y": drawn}
    about = (
        f"{data.about}; {chosen.sum()} of {len(labels)} training labels drawn at random, of which "
        f"{(drawn != labels).sum()} are wrong (seed {seed})"
    )
    parts = {"train": train, "test": data.test} | ({} if data.validation is None else {"validation": data.validation})
    mark = fingerprint(jax.tree.map(np.asarray, parts))
    return dataclasses.replace(data, train=train, clean=data.train, about=about, fingerprint=mark)
