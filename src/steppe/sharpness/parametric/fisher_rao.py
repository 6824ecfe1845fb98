"""The Fisher-Rao norm: the length of the parameters in the metric of the network's own gradients."""

import jax
import jax.numpy as jnp

from steppe.core import checks, entry, losses, trees
from steppe.core.batches import Batches, average
from steppe.core.programs import compiled
from steppe.core.types import Apply, Batch, Criterion, Estimate, Params
from steppe.curvature.estimators.estimates import exact


def fisher_rao(
    apply: Apply,
    params: Params,
    batches: Batch | list[Batch],
    *,
    criterion: Criterion = losses.cross_entropy,
    layers: int | None = None,
) -> Estimate:
    """The Fisher-Rao norm √(θᵀFθ) = √(1/N Σᵢ (θᵀ∇ℓᵢ)²), F the empirical Fisher matrix (Liang et al. 2019, def. 2).

    A network of D layers that is homogeneous in each (ReLU, no biases) has Jθ = D f, so that its norm is

        D √(1/N Σᵢ ⟨∂ℓᵢ/∂f, f⟩²),    for cross-entropy D √(1/N Σᵢ (⟨softmax fᵢ, fᵢ⟩ − fᵢ[yᵢ])²)

    (theorem 3.1, eq. 5.3): a function of the outputs f alone. `layers` asks for this form, of any network.

    Parameters
    ----------
    apply : ``apply(params, x)``: the outputs for B inputs.
    params : pytree of floating arrays.
    batches : a list of batches ``{"x": …, "y": …}`` or ``(x, y)``, or anything else: one batch.
    criterion : ``criterion(outputs, y)``, the mean over the batch; `losses.cross_entropy` (K = 1: sigmoid).
    layers : None: the definition, of whatever network, biases and normalisation included. D: the analytic form, with
        the number D of weight matrices.

    Returns
    -------
    Estimate with standard error 0, in units of the loss. Cost: one forward pass with its slope along θ over the
    examples (with `layers`, one forward pass); memory of one batch.

    Raises
    ------
    InputError : layers below 1; parameters or batches that cannot be used.

    Notes
    -----
    Does not change when a ReLU network is rescaled, neither layer-wise (aW₁, ab₁, W₂/a) nor node by node, nor under any
    other linear change of the parameters that keeps the function; it does change with the scale of the logits, and
    with weight decay.

    The authors count L hidden layers and write L + 1. Code released with later studies counts all D = L + 1 matrices
    and multiplies by D + 1, one too many; ``layers=D + 1`` gives that number. With biases, residual branches or
    normalisation the analytic form is not the norm of the definition.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> apply = lambda p, x: jax.nn.relu(x @ p["in"]) @ p["out"]
    >>> params = {"in": jnp.eye(2), "out": jnp.array([[1.0, 0.0], [2.0, 1.0]])}
    >>> batch = {"x": jnp.eye(2), "y": jnp.array([0, 1])}
    >>> [round(float(fisher_rao(apply, params, batch, layers=layers).mean), 4) for layers in (None, 2)]
    [1.1016, 1.1016]
    """
    name = "fisher_rao"
    if layers is not None:
        checks.whole(name, "layers", layers, todo="Count the weight matrices, or leave it out.")
    loss, known = entry.network_and_batches(name, apply, criterion, params, batches, single="criterion")
    return _fisher_rao(loss, params, known, layers=layers)


@compiled(static=("layers",))
def _fisher_rao(loss: losses.NetworkLoss, params: Params, batches: Batches, *, layers: int | None) -> Estimate:
    def mean_square(batch: Batch) -> jax.Array:
        x, y = checks.inputs_and_targets("fisher_rao", batch)
        if layers is None:
            outputs, change = jax.jvp(lambda p: loss.apply(p, x), (params,), (params,))
        else:
            outputs = loss.apply(params, x)
            change = layers * outputs
        slopes = jax.jvp(lambda f: losses.example_losses(loss.criterion, f, y), (outputs,), (change,))[1]
        share = losses.shares(getattr(loss.criterion, "weight", None), y)
        return jnp.sum(losses.weigh(share, slopes.astype(trees.accumulator_dtype(slopes)) ** 2))

    squared = average(mean_square, batches)
    # a slope of 0 where the norm is 0
    root = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
    return exact(root)
