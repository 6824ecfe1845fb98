"""What an update with the penalty must cost at least, counted in matrix products.

For dense layers of sizes d₀, …, d_L on B rows, one product of layer i is wᵢ = 2 B dᵢ₋₁ dᵢ operations. The cheapest
exact way known to the gradient of 1/M Σⱼ ‖H vⱼ‖² has, whatever else it does,

    a pass forward and back, without weight gradients      w₁ + 2 Σ_{i≥2} wᵢ
    the penalty's weight gradient, once                    Σᵢ wᵢ
    M tangents, forward and back, and their reverse        M (2 + 4) Σ_{i≥2} wᵢ

operations. The first layer's input is data: no tangent passes through its weights, nothing is carried back through
them. Not counted, since a cleverer way might do without: drawing probes, what a probe does to a layer's output, norms,
activations, and everything that is as long as the parameters.
"""

import itertools


def gradient_operations(sizes: tuple[int, ...], rows: int) -> int:
    """Of one plain gradient: forward, back to all layers but the first, weight gradients."""
    first, later = _products(sizes, rows)
    return 2 * first + 3 * later


def penalty_operations(sizes: tuple[int, ...], rows: int, probes: int) -> int:
    """Of the penalty's gradient, see above."""
    first, later = _products(sizes, rows)
    return (first + 2 * later) + (first + later) + 6 * probes * later


def update_ms(
    plain_update_ms: float, gradient_ms: float, sizes: tuple[int, ...], rows: int, probes: int, every: int
) -> float:
    """A penalised update at the floor: a plain one, and 1/k of the penalty at the speed of the plain gradient."""
    rate = gradient_operations(sizes, rows) / gradient_ms
    return plain_update_ms + penalty_operations(sizes, rows, probes) / rate / every


def _products(sizes: tuple[int, ...], rows: int) -> tuple[int, int]:
    """Operations of one product of the first layer, and of one product of each later one."""
    first, *later = (2 * rows * a * b for a, b in itertools.pairwise(sizes))
    return first, sum(later)
