"""PyTorch modules as networks."""

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from steppe.core import extras
from steppe.core.types import Params
from steppe.models.base import Network, State, Trained

if TYPE_CHECKING:
    import torch


class TrainedModule(Trained):
    """A PyTorch module as `Trained`, with the way back."""

    __slots__ = ()

    def into_torch(self, params: Params | None = None, state: State | None = None) -> "torch.nn.Module":
        """Write parameters into the module from which they came.

        Parameters
        ----------
        params : Params, optional
            As `params` of this object has them; those by default.
        state : State, optional
            Buffers and frozen parameters, such as running statistics; those of this object by default.

        Returns
        -------
        torch.nn.Module
            The very module that was given to `from_torch`, on its device and in its dtypes. Its mode is left alone.

        Raises
        ------
        InputError
            Missing or unknown names, which are listed; another shape; a value that is no number.

        Examples
        --------
        >>> import jax, steppe, torch
        >>> trained = steppe.from_torch(torch.nn.Linear(3, 2), torch.ones(1, 3))
        >>> module = trained.into_torch(jax.tree.map(lambda leaf: 0 * leaf, trained.params))
        >>> float(module(torch.ones(3)).detach().sum())
        0.0
        """
        from steppe.models.adapters.pytorch import writing

        forward: Any = self.network.apply
        return writing.write(
            forward.module, self.params if params is None else params, self.state if state is None else state, self
        )


def from_torch(
    module: "torch.nn.Module", example: Any, *, outputs: Callable[[Any], "torch.Tensor"] | None = None
) -> TrainedModule:
    """A user's PyTorch module, with the parameters and buffers that it has now.

    Parameters that ask for a gradient are parameters, by PyTorch's names; tied ones are one array, under their first
    name. Buffers, also of integers, and frozen parameters are state. Evaluation is ``module.eval()``. In training mode
    BatchNorm moves its running statistics as PyTorch does, and dropout is drawn from the key of `Network.apply`;
    without a key there is none. The module is left alone, and later changes of it are not seen.

    JAX runs the module by torchax (https://github.com/google/torchax), with scanned recurrent layers and convolutions
    with channels last inside. Outputs and a derivative along a random direction are compared with PyTorch's on the
    example, in float64 where the module runs in it; so are the buffers after a pass in training mode.

    Parameters
    ----------
    module : torch.nn.Module
        An instance, on any device.
    example : Any
        Inputs of two or more examples, as arrays or tensors: one array, a tuple of positional arguments, or a
        dictionary of keyword arguments, such as ``{"input_ids": ids, "attention_mask": mask}``. Inputs of `apply` have
        the same form. A module with one argument gets a tuple or a dictionary as it is.
    outputs : callable, optional
        From what the module returns to the tensor of outputs. By default what it returns, or its ``logits``.

    Returns
    -------
    TrainedModule
        Parameters and state are dictionaries from names to arrays. `Network.init` gives the module's own values
        whatever the key. ``.into_torch(params)`` writes back. Cost: in float64, one pass of PyTorch and its gradient,
        one pass of JAX with a derivative, compiled in haste, and a copy of the module; two traces.

    Raises
    ------
    MissingExtra
        PyTorch or torchax is not installed.
    InputError
        Not an instance of a module, or one without values or parameters; an example that it does not take; a module
        that does not convert, that draws random numbers in evaluation mode, that changes from call to call, or
        whose outputs or derivatives differ from PyTorch's. Where training mode differs or cannot be compared, `apply`
        with ``train=True`` is refused.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, torch
    >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5))
    >>> trained = from_torch(net, torch.ones(2, 3))
    >>> sorted(trained.params)
    ['0.bias', '0.weight', '1.bias', '1.weight']
    >>> sorted(trained.state)
    ['1.num_batches_tracked', '1.running_mean', '1.running_var']
    >>> trained.apply(trained.params, jnp.ones((5, 3))).shape
    (5, 4)
    """
    extras.require("from_torch", "torch")
    from steppe.models.adapters.pytorch import conversion

    return TrainedModule(*conversion.trained(module, example, outputs))


def is_module(thing: Any) -> bool:
    """Whether it is a PyTorch module; none is before somebody has imported PyTorch."""
    library = sys.modules.get("torch")
    return library is not None and isinstance(thing, library.nn.Module)


def from_factory(
    module: "torch.nn.Module",
    example: Any,
    make: "Callable[[], torch.nn.Module] | None" = None,
    *,
    channels_last: bool = False,
) -> Network:
    """The network of a module; every call of `make` draws the parameters of another one.

    Parameters
    ----------
    module, example
        As for `from_torch`.
    make : callable or None
        ``init(key)`` is what it makes after ``torch.manual_seed`` with a number drawn from the key. Without it `init`
        gives the module's own values whatever the key.
    channels_last : bool
        Whether inputs are images, (B, H, W, C), of which the module gets (B, C, H, W).
    """
    from steppe.models.adapters.pytorch import factory

    if channels_last:
        example = factory.channels_first(example)
    return factory.network(from_torch(module, example), make, channels_last)


class Names(NamedTuple):
    """What checkpoints of a module may call its arrays.

    Attributes
    ----------
    aliases : further names of tied weights, to the name that `from_torch` gives them.
    optional : what a checkpoint may lack: buffers that PyTorch does not save, and counts of batches.
    """

    aliases: Mapping[str, str]
    optional: frozenset[str]


IGNORED = frozenset(("n_averaged",))
"""What checkpoints hold of no module of the user's: the count of ``torch.optim.swa_utils.AveragedModel``."""


def names_of(module: "torch.nn.Module") -> Names:
    """The names of its arrays in checkpoints, see `Names`."""
    from steppe.models.adapters.pytorch.modules import tensors

    first, saved = tensors(module), module.state_dict(keep_vars=True)
    known = {id(tensor): name for name, tensor in first.items()}
    aliases = {name: known[id(tensor)] for name, tensor in saved.items() if known.get(id(tensor), name) != name}
    counts = {name for name in first if name.rpartition(".")[2] == "num_batches_tracked"}
    return Names(aliases, frozenset(counts | (first.keys() - saved.keys())))
