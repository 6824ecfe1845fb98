"""Networks that compute in fewer bits than their parameters have."""

from typing import Any

import jax
import jax.numpy as jnp

from steppe.core import checks
from steppe.models.base import Network, Variables


def mixed_precision(network: Network, dtype: Any = jnp.bfloat16) -> Network:
    """The same network, which computes its outputs in another dtype, from parameters that stay in their own.

    Parameters and inputs are rounded to `dtype` at the door, and outputs come back in float32, so that a loss of them
    is computed in float32. Derivatives go through the rounding as through the identity: a gradient is computed in
    `dtype`, and comes back in the dtype of the parameters. State, such as running statistics, is handed in as it is,
    and keeps its dtype. A layer of a network of one's own that mixes float32 arrays of its own with what comes in goes
    on in float32, as Flax's BatchNorm does unless it is made with ``dtype=``.

    Parameters
    ----------
    network : Network
        Whose parameters are float32.
    dtype : dtype
        In which it computes. bfloat16 has the range of float32, so that no loss needs to be scaled.

    Returns
    -------
    Network
        With the same initial values, without closed forms of moments, and without estimated statistics.

    Raises
    ------
    InputError
        A network with floating-point parameters of another dtype.

    Notes
    -----
    Micikevicius et al. (2018), "Mixed precision training"; with bfloat16 Kalamkar et al. (2019).

    Examples
    --------
    >>> from steppe import models
    >>> network = mixed_precision(models.build("mlp", (3,), 2, hidden=(4,)))
    >>> params, state = network.init(jax.random.key(0))
    >>> network.at(state)(params, jnp.ones((5, 3))).dtype
    dtype('float32')
    """
    like = jax.eval_shape(network.init, jax.random.key(0)).params
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(like)} - {"float32"}
    if kinds:
        checks.fail("mixed_precision", "network", "one whose parameters are float32", f"some of {sorted(kinds)[0]}",
                    "It says itself in which dtype it computes.")  # fmt: skip

    def rounded(leaf: Any) -> Any:
        return leaf.astype(dtype) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf

    def apply(variables: Variables, x: Any, *, key: Any = None, train: bool = False) -> tuple[jax.Array, Any]:
        params, state = variables
        inside = Variables(jax.tree.map(rounded, params), state)
        outputs, after = network.apply(inside, jax.tree.map(rounded, x), key=key, train=train)
        if str(jax.tree.structure(after)) == str(jax.tree.structure(state)):
            after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, state)
        return outputs.astype(jnp.float32), after

    return network._replace(apply=apply, moments=None, statistics=None)
