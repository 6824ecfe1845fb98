"""Training over several devices of a machine: each has a part of every batch, and all of the network.

What is computed is said once, for the whole batch, and XLA adds what the devices tell each other. So a loss, statistics
of normalisation, random streams and methods are those of one device, up to the order of sums.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from steppe.core import checks
from steppe.core.types import Batch
from steppe.study.spec.tables import Train


@dataclass(frozen=True)
class Placement:
    """Where training computes.

    Attributes
    ----------
    devices : two or more; none for JAX's default device, whose program is that of a study without `[train] devices`.
    """

    devices: tuple[jax.Device, ...] = ()

    @classmethod
    def of(cls, train: Train) -> "Placement":
        """What `[train] devices` asks for.

        Raises
        ------
        InputError
            More devices than there are; a batch, or a part of it, that they cannot share equally; a process that is one
            of several (`jax.distributed`).
        """
        if jax.process_count() > 1:
            checks.fail("study", "processes", "1, which can train on all devices of its machine",
                        f"{jax.process_count()} of jax.distributed",
                        "Say [train] devices, or write the loop yourself: methods and measures take any number of "
                        "processes.")  # fmt: skip
        here = jax.local_devices()
        count = len(here) if train.devices == "all" else train.devices or 1
        if count > len(here):
            checks.fail("study", "train.devices", f"at most {len(here)}, the devices of this machine", count,
                        'Say "all" for as many as there are.')  # fmt: skip
        parts = train.accumulate or 1
        if count > 1 and train.batch_size % (count * parts):
            each = f"{count} devices" + (f" times {parts} parts (train.accumulate)" if parts > 1 else "")
            least = -(-train.batch_size // (count * parts)) * count * parts
            checks.fail("study", "train.batch_size", f"a multiple of {each}, which share every batch equally",
                        train.batch_size, f"Take {least}, or other train.devices.")  # fmt: skip
        return cls(tuple(here[:count])) if count > 1 else cls()

    @property
    def count(self) -> int:
        """How many devices train."""
        return len(self.devices) or 1

    @property
    def whole(self) -> NamedSharding | None:
        """All of an array on every device."""
        return NamedSharding(self._mesh, PartitionSpec()) if self.devices else None

    @property
    def options(self) -> dict[str, Any]:
        """Of `jax.jit`, for a program whose arguments and values are whole on every device."""
        return {"in_shardings": self.whole, "out_shardings": self.whole} if self.devices else {}

    def spread(self, batch: Batch) -> Batch:
        """A batch within a program, of whose examples each device has an equal part."""
        if not self.devices:
            return batch
        parts = NamedSharding(self._mesh, PartitionSpec("batch"))
        spread: Batch = jax.lax.with_sharding_constraint(batch, jax.tree.map(lambda _: parts, batch))
        return spread

    def everywhere(self, arrays: Any) -> Any:
        """Arrays of the host, on the devices."""
        return jax.device_put(arrays, self.whole) if self.devices else jax.tree.map(jnp.asarray, arrays)

    def alone(self, arrays: Any) -> Any:
        """Arrays that training gives, as one device has them: what measures is compiled for one, and for no other."""
        return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), arrays) if self.devices else arrays

    @property
    def _mesh(self) -> Mesh:
        return Mesh(np.array(self.devices), ("batch",))


ONE_DEVICE = Placement()
"""JAX's default device."""
