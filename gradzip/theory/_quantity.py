"""The quantities that theorems bound."""

from __future__ import annotations

from typing import NamedTuple


class Quantity(NamedTuple):
    """A quantity that a theorem bounds."""

    means: str
    needs: str  # the field of the problem that gives its initial value
    ergodic: bool  # a mean over the iterates so far: it falls as 1 / k instead of geometrically


QUANTITIES = {
    'V': Quantity('E |x_k - x*|^2', 'V0', False),
    'distance': Quantity('|x_k - x*|', 'V0', False),
    'F': Quantity('E F(x_k) - F*', 'F0', False),
    'F_mean': Quantity('E F(mean of x_0 .. x_{k-1}) - F*', 'V0', True),
    'gradient_least': Quantity('least of j < k of E |grad F(x_j)|^2', 'F0', True),
    'gradient_mean': Quantity('mean over j < k of E |grad F(x_j)|^2', 'F0', True),
}
