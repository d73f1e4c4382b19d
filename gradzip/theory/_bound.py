"""What a theorem says of a run: a step, a rate, a floor; iterations and bits."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

from gradzip.theory import _assume as assume


class Quantity(NamedTuple):
    """What a bound is on."""

    means: str
    needs: str  # the field of the problem that starts it
    ergodic: bool  # a mean over the iterates so far: falls as 1 / k, not geometrically


QUANTITIES = {
    'V': Quantity('E |x_k - x*|^2', 'V0', False),
    'F': Quantity('E F(x_k) - F*', 'F0', False),
    'F_mean': Quantity('E F(mean of x_0 .. x_{k-1}) - F*', 'V0', True),
    'gradient_mean': Quantity('mean over j < k of E |grad F(x_j)|^2', 'F0', True),
}


@dataclasses.dataclass(frozen=True)
class Bound:
    """One theorem at one step size. Made by the functions of `gradzip.theory`.

        quantity at k  <=  factor^k initial + floor      quantity 'V' or 'F'
        quantity at k  <=  initial / k + floor           quantity 'F_mean' or 'gradient_mean'

    Args:
      theorem: its name, and what is run.
      assumptions: what must hold, in words.
      quantity: what is bounded: 'V' = E |x_k - x*|^2, 'F' = E F(x_k) - F*, 'F_mean' the same at the
        mean of x_0 .. x_{k-1}, 'gradient_mean' the mean over j < k of E |grad F(x_j)|^2.
      step_size: of the average form: `optax.sgd(bound.step_size)` behind the exchange.
      factor: contraction of one iteration; 1 for what falls as 1 / k.
      initial: what multiplies the rate; None if the problem has neither V0 nor F0.
      residual: the floor; None if the problem has no G.
      messages: sent to the server by all workers together, in one iteration.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=4, L=1.0, mu=0.1, L_max=2.0, G=0.01, V0=9.0)
      >>> print(theory.dcgd(problem, omega=1.0, step_size=0.25))
      theorem      C1: every worker compresses its own gradient
      assumptions  every f_i convex and smooth, F strongly convex, Q unbiased, workers independent
      quantity     V = E |x_k - x*|^2
      step_size    0.25
      factor       0.9625
      initial      9
      floor        0.00208333
      messages     4
    """

    theorem: str
    assumptions: str
    quantity: str
    step_size: float
    factor: float
    initial: float | None
    residual: float | None
    messages: float

    @property
    def floor(self) -> float:
        """Where the bound ends, however long the run.

        Raises:
          ValueError: it is unknown, as the problem has no G.
        """
        if self.residual is None:
            raise ValueError(self._unknown('floor', 'G'))
        return self.residual

    def at(self, k: int) -> float:
        """The bound on the quantity at iteration k; x_0 is iteration 0.

        Raises:
          ValueError: k is negative, or the problem lacks V0, F0 or G.
        """
        k = assume.integer('at', 'k', k, 0)
        if self.initial is None:
            raise ValueError(self._unknown('value', QUANTITIES[self.quantity].needs))
        if QUANTITIES[self.quantity].ergodic:
            return self.floor + (self.initial / k if k else math.inf)
        return self.floor + self.factor**k * self.initial

    def iterations(self, eps: float) -> int | float:
        """The first iteration at which the bound is at most eps; math.inf if it never is.

        Raises:
          ValueError: eps is negative or no number, or the problem lacks V0, F0 or G.
        """
        eps = assume.real('iterations', 'eps', eps, 0)
        if self.at(0) <= eps:
            return 0
        if eps < self.floor or (eps == self.floor and self.factor > 0):
            return math.inf  # in floats the bound reaches its floor, on paper it does not
        above, enough = 0, 1  # at(above) > eps >= at(enough): double, then halve
        while self.at(enough) > eps:
            above, enough = enough, 2 * enough
            if enough > 2**200:  # a factor that is 1 in floats
                return math.inf
        while enough - above > 1:
            middle = (above + enough) // 2
            above, enough = (above, middle) if self.at(middle) <= eps else (middle, enough)
        return enough

    def bits(self, eps: float, bits_per_message: float) -> float:
        """Bits that all workers together send until the bound is at most eps; math.inf if never.

        Args:
          eps: the accuracy of `iterations`.
          bits_per_message: of one worker's payload: `8 * gradzip.payload_bytes(scheme, params)`.

        Raises:
          ValueError: as `iterations`; bits_per_message is negative.
        """
        size = assume.real('bits', 'bits_per_message', bits_per_message, 0)
        return self.iterations(eps) * self.messages * size

    def __str__(self) -> str:
        rows = {
            'theorem': self.theorem,
            'assumptions': self.assumptions,
            'quantity': f'{self.quantity} = {QUANTITIES[self.quantity].means}',
            'step_size': self.step_size,
            'factor': '1, falls as initial / k'
            if QUANTITIES[self.quantity].ergodic
            else self.factor,
            'initial': _or_missing(self.initial, QUANTITIES[self.quantity].needs),
            'floor': _or_missing(self.residual, 'G'),
            'messages': self.messages,
        }
        return '\n'.join(f'{name:<13}{_short(value)}' for name, value in rows.items())

    def _unknown(self, what: str, field: str) -> str:
        name = self.theorem.split(':')[0]
        return (
            f'Theorem {name} gives no {what} without {field}, which this problem lacks. Give it as '
            f'Problem({field}=...), or measure the problem: gradzip.advice.measure. The step size '
            'and the factor hold as they are.'
        )


def _or_missing(value: float | None, field: str) -> float | str:
    return f'unknown: the problem has no {field}' if value is None else value


def _short(value: Any) -> str:
    return f'{value:.6g}' if isinstance(value, int | float) else value
