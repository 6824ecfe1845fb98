"""FA-Regularization: λ/B · tr(H²) added to the training loss."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from steppe import curvature as curvature_
from steppe.core import checks, trees
from steppe.core.types import Batch, Estimate, Key, Loss, Params
from steppe.curvature.estimators.estimates import Distribution
from steppe.methods.contract import Strength, whole
from steppe.methods.penalties.penalty import Matrix, MomentsOf, accumulated, added, hutchinson, operator

Curvature = Callable[[Loss, Params, Batch, jax.Array], Estimate]


def fa(
    lam: Strength,
    *,
    probes: int = 5,
    every: int = 10,
    distribution: Distribution = "rademacher",
    normalize: Literal["batch", "params"] | None = "batch",
    curvature: Curvature | None = None,
    matrix: Matrix = "hessian",
    adaptive: bool = False,
    where: Any = None,
    microbatches: int | None = None,
    rematerialize: int | None = None,
    key: Key = 0,
) -> optax.GradientTransformationExtraArgs:
    """Add the gradient of a penalty on the squared Hessian norm to the gradients (FA-Regularization).

    Minimises ``L(θ) + λ/s · tr(H(θ)²)``, H the Hessian of the mini-batch loss and s the batch size B
    (``normalize="batch"``), the number n of penalised parameters (``"params"``) or 1 (None), with

        tr(H²) ≈ 1/M · Σⱼ ‖H vⱼ‖²,   E vvᵀ = I   (Hutchinson 1989),

    unbiased in value and in gradient. Stands after methods that replace the gradient (SAM) and before the optimiser:

        tx = optax.chain(steppe.methods.fa(0.01), optax.adam(1e-3))
        updates, state = tx.update(grads, state, params, loss=loss, batch=batch)

    Parameters
    ----------
    lam : λ ≥ 0: a float, a traced value, or an Optax schedule. A literal 0 is the plain optimiser, bitwise and at
        no cost; a traced 0 agrees with it and costs.
    probes : M, the number of random vectors.
    every : the penalty acts on updates 0, k, 2k, …; its weight is *not* multiplied by k in between, as in the paper.
    distribution : "rademacher" (signs) or "gaussian" probes.
    normalize : what the penalty is divided by, see above.
    curvature : ``(loss, params, batch, key) -> Estimate``, differentiable in params: another estimator of what
        is penalised. Under `jax.jit` what it reads besides its arguments is fixed at the first update; outside of it
        changes are seen, and what reads more than Python's plain values is traced at every update. `probes`,
        `distribution`, `matrix` and `adaptive` then do nothing. None: tr(H²) by Hutchinson's probes.
    matrix : "hessian", or "ggn": the generalised Gauss-Newton matrix JᵀCJ in the place of H, J the Jacobian of the
        outputs and C the Hessian of the criterion in them. It leaves out the network's own curvature, and is the Fisher
        matrix under cross-entropy (`curvature.ggn`). The loss, or `penalty_loss`, must be made by `losses.of`.
    adaptive : penalise tr((W H W)²), W = diag(θ), the curvature in units of the weights: unchanged when a layer of a
        ReLU network is multiplied and the next one divided by the same number.
    where : restrict the penalty to some parameters: globs of their names, ``"blocks.*.attn"`` or a list of such; a
        pytree of bools, a prefix of params; or a function from params to one of these. H is then the block of the
        chosen parameters, and only they receive the penalty's gradient.
    microbatches : compute H in so many equal parts of the batch: the same penalty in the memory of one part, at the
        cost of a network without layers. Every number of parts, 1 included, sees the same random vectors, other ones
        than None, which computes H from the whole batch in the cheapest way. The loss must treat examples alike:
        dropout masks that it closes over are those of one part, repeated.
    rematerialize : take less memory and more time: the penalised loss is cut into so many segments, at least 2 (8 is a
        good choice); derivatives keep what passes between them, and compute again what is inside of one at a time. The
        random vectors are other ones than without. Not together with "ggn", `adaptive` or `microbatches`.
    key : seed of the probes, an int or a key array.

    Returns
    -------
    An `optax.GradientTransformationExtraArgs`. ``update`` takes ``loss`` and ``batch``, and optionally
    ``penalty_loss``, the function whose curvature is penalised (default: `loss`): give the loss without dropout for
    the paper's protocol, leave it out to penalise the function that is trained, with its very masks.
    ``state.monitor`` is the last tr(H²) as an Estimate.

    Cost of a penalised update, spread over `every` updates: about 2M + 1 gradients where the network consists of wide
    dense or convolutional layers (`curvature.find_layers` lists them), 4M + 1 elsewhere; with "ggn" 3M + 1 by count of
    operations, whatever the layers.

    Raises
    ------
    InputError : arguments out of range, when made; when updated a missing loss, batch or params, a loss that hides the
        outputs with "ggn", microbatches that do not divide the batch, a place in a chain after the optimiser, or inside
        `optax.MultiSteps`.

    Notes
    -----
    A schedule must stay at 0 or above; its values are known only to the compiled program, and are not checked. With
    ``optax.inject_hyperparams`` name `probes` as static, and arguments that are functions.

    Algorithms 1 and 2 of "Flat is the New Sharp: Flatness-Aware Regularization for Robust Learning" (submission
    21421 to ICLR 2026), eqs. 1-4. Under `shard_map` the loss must contain its own ``pmean``, and B is the size of the
    shard; under `jit` with sharded arrays nothing is needed.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax, steppe
    >>> loss = lambda w, batch: jnp.mean(jnp.tanh(batch["x"] @ w - batch["y"]) ** 2)
    >>> params, batch = jnp.ones(2), {"x": jnp.eye(2), "y": jnp.zeros(2)}
    >>> tx = optax.chain(steppe.methods.fa(0.01), optax.adam(1e-3))
    >>> state = tx.init(params)
    >>> grads = jax.grad(loss)(params, batch)
    >>> updates, state = tx.update(grads, state, params, loss=loss, batch=batch)
    >>> round(float(steppe.monitor(state)["fa"].mean), 3)
    0.193
    """
    probes = whole("fa", "probes", probes)
    parts = microbatches if microbatches is None else whole("fa", "microbatches", microbatches)
    checks.one_of("fa", "distribution", distribution, ("rademacher", "gaussian"))
    checks.one_of("fa", "adaptive", adaptive, (True, False))
    checks.one_of("fa", "normalize", normalize, ("batch", "params", None))
    if curvature is not None and not callable(curvature):
        checks.fail(
            "fa", "curvature", "None or a function (loss, params, batch, key) -> Estimate", checks.shown(curvature)
        )
    if adaptive and rematerialize is not None:
        checks.fail("fa", "rematerialize", "None with adaptive", rematerialize, "Use microbatches to take less memory.")
    moments = hutchinson("fa", matrix, probes, parts, distribution, "frobenius_squared", rematerialize=rematerialize)
    known = _in_weights(matrix, probes, distribution, parts) if adaptive else _second(moments)
    measure = known if curvature is None else accumulated("fa", curvature, parts)

    def value(loss: Loss, params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Estimate]:
        found = measure(loss, params, batch, key)
        return jnp.asarray(found.mean), found

    def divisor(batch: Batch, chosen: Params) -> int:
        return {"batch": checks.batch_size("fa", batch), "params": trees.size(chosen), None: 1}[normalize]

    return added("fa", value, lam, divisor=divisor, every=every, where=where, parts=parts, key=key)


def _second(moments: MomentsOf) -> Curvature:
    """tr(H²) of both moments."""
    return lambda loss, params, batch, key: moments(loss, params, batch, key).frobenius_squared


def _in_weights(matrix: Matrix, probes: int, distribution: Distribution, parts: int | None) -> Curvature:
    """tr((W H W)²), in units of the weights, by Hutchinson's probes."""

    def measure(loss: Loss, params: Params, batch: Batch, key: jax.Array) -> Estimate:
        rescaled = curvature_.rescaled(operator("fa", matrix, loss, params, batch, parts), params)
        return curvature_.frobenius_squared(rescaled, key, probes=probes, distribution=distribution)

    return measure
