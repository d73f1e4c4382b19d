"""A function of one number that is not convex, on which theorem A1 is nearly attained.

Between the points of a run its slope falls below that of the Polyak-Lojasiewicz inequality, which
theorem A1 assumes at these points only.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

KINK = 1e-3  # of a coordinate: how far above the points of a run the slope is largest


class Wells(NamedTuple):
    """The function phi(x), x > 0, for which phi(q x) = q^2 phi(x), with |phi''| = 1."""

    q: float  # between the points of a run, x_{j+1} = x_j - phi'(x_j) = q x_j
    top: float  # a place where the slope is largest
    slope: float  # there
    fall: float  # over which distance below `top` it falls

    @property
    def bottom(self) -> float:
        return self.slope - self.fall

    @property
    def value(self) -> float:
        """phi(top)."""
        rise = (1 - self.q) * self.top - self.fall
        area = self.fall * (self.slope + self.bottom) + rise * (2 * self.bottom + rise)
        return area / 2 / (1 - self.q**2)

    def at(self, x: Any, xp: Any = jnp) -> tuple[Any, Any]:
        """Returns phi and its slope, computed by JAX or by NumPy."""
        x = xp.maximum(x, 1e-30)
        scale = self.q ** xp.floor(xp.log(self.top / x) / -math.log(self.q))
        t = self.top - x / scale
        falls, rises = xp.minimum(t, self.fall), xp.maximum(t - self.fall, 0)
        area = falls * (self.slope - falls / 2) + rises * (self.bottom + rises / 2)
        return scale**2 * (self.value - area), scale * (self.slope - falls + rises)


def wells(k: float) -> tuple[Wells, float]:
    """Returns phi and the constant mu, about k, of |phi'|^2 >= 2 mu phi at the points x_j = q^j.

    phi(x_{j+1}) / phi(x_j) = q^2 is about (1 - k) / (1 + k/2). This is attained by the slope that
    first falls as fast as it may and then rises as fast. It would be exact if the slope were
    largest at x_j. It is so a little above, because points that miss x_j by their rounding then
    meet it in the next step.
    """
    q = math.sqrt((1 - k) / (1 + k / 2))
    top = 1 + KINK
    slope = (1 - q) + KINK
    phi = Wells(q, top, slope, (1 - q) * (slope + top) / 2)
    start = phi.value - KINK * (slope + 1 - q) / 2  # phi(1)
    return phi, (1 - q) ** 2 / (2 * start)
