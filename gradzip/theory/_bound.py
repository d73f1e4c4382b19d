"""What a theorem says about a run: a step size, a rate and a floor, then iterations and bits."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from gradzip.theory import _assume as assume
from gradzip.theory._quantity import QUANTITIES


@dataclasses.dataclass(frozen=True)
class Bound:
    """One theorem, evaluated at one step size. The functions of `gradzip.theory` return it.

        quantity at k  <=  factor^k initial + floor      quantity 'V', 'distance' or 'F'
        quantity at k  <=  initial / k + floor           quantity 'F_mean' or 'gradient_...'

    Printing a bound shows `summary()`, a table of all of this.

    Args:
      theorem: the name of the theorem, and the algorithm that it is about.
      assumptions: what must hold, in words.
      quantity: what is bounded: 'V' = E |x_k - x*|^2, 'distance' = |x_k - x*|,
        'F' = E F(x_k) - F*, 'F_mean' the same at the mean of x_0 .. x_{k-1}, 'gradient_mean' the
        mean over j < k of E |grad F(x_j)|^2, 'gradient_least' the least of them.
      step_size: of the average form: `optax.sgd(bound.step_size)` behind the exchange.
      factor: contraction of one iteration; 1 for a quantity that falls as 1 / k.
      initial: the factor of the rate; None if the problem has neither V0 nor F0.
      residual: the floor; None if the problem has no G.
      messages: how many messages all workers together send to the server in one iteration.

    Raises:
      ValueError: 1 - factor is too small for floating-point numbers.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=4, L=1.0, mu=0.1, L_max=2.0, G=0.01, V0=9.0)
      >>> print(theory.dcgd(problem, omega=1.0, step_size=0.25))
      theorem      C1: every worker compresses its own gradient
      assumptions  every f_i convex and smooth, F strongly convex, Q unbiased, workers independent
      quantity     V = E |x_k - x*|^2
      step_size    0.25
      factor       0.956875
      1 - factor   0.043125
      initial      9
      floor        0.00181159
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

    def __post_init__(self) -> None:
        if not (0 < self.step_size < math.inf):
            raise ValueError(
                f'The step size of theorem {self._name} is {self.step_size} in floating-point '
                'arithmetic: the constants of the problem, omega or tau are too extreme.'
            )
        if self.factor >= 1 and not QUANTITIES[self.quantity].ergodic:
            raise ValueError(
                f'The rate of theorem {self._name}, 1 - factor, is below 1e-16 at step size '
                f'{self.step_size:.6g}, too small for floating-point numbers. The problem is too '
                'badly conditioned (L / mu), or omega, tau or the step size are too extreme. Add '
                'an l2 term lam/2 |x|^2 to the loss: then mu >= lam.'
            )

    @property
    def floor(self) -> float:
        """The value to which the bound falls, however long the run.

        Raises:
          ValueError: it is unknown, because the problem has no G.
        """
        if self.residual is None:
            raise ValueError(self._unknown('floor', 'G'))
        return self.residual

    def at(self, k: int) -> float:
        """Returns the bound on the quantity at iteration k; x_0 is iteration 0.

        Raises:
          ValueError: k is negative, or the problem lacks V0, F0 or G.
        """
        return self._at(assume.integer('at', 'k', k, 0, 2**200))

    def iterations(self, eps: float) -> int | float:
        """Returns the first iteration at which the bound is at most eps; math.inf if it never is.

        Raises:
          ValueError: eps is negative or no number, or the problem lacks V0, F0 or G.
        """
        eps = assume.real('iterations', 'eps', eps, 0)
        if self._at(0) <= eps:
            return 0
        if eps < self.floor or (eps == self.floor and self.factor > 0):
            return math.inf  # rounded to floats the bound reaches its floor, but it never does
        above, enough = 0, 1  # _at(above) > eps >= _at(enough): double, then bisect
        while self._at(enough) > eps:
            above, enough = enough, 2 * enough
            if enough > 2**200:
                return math.inf
        while enough - above > 1:
            middle = (above + enough) // 2
            above, enough = (above, middle) if self._at(middle) <= eps else (middle, enough)
        return enough

    def bits(self, eps: float, bits_per_message: float) -> float:
        """Returns the bits that all workers together send until the bound is at most eps.

        They are math.inf if the bound never gets there.

        Args:
          eps: the accuracy, as in `iterations`.
          bits_per_message: the size of one worker's payload, above 0:
            `8 * gradzip.payload_bytes(scheme, params)`.

        Raises:
          ValueError: as `iterations`; bits_per_message is not above 0.
        """
        size = assume.real('bits', 'bits_per_message', bits_per_message, 0, above=True)
        return self.iterations(eps) * self.messages * size

    def summary(self, eps: float | None = None, bits_per_message: float | None = None) -> str:
        """Returns a table of the bound and, for a target, of the iterations and bits to reach it.

        Args:
          eps: the target; without it the table has no iterations.
          bits_per_message: the size of one worker's payload; without it the table has no bits.

        Raises:
          ValueError: as `iterations` and `bits`; bits_per_message is given without eps.

        Example:
          >>> from gradzip import theory
          >>> bound = theory.gd(theory.Problem(n=1, L=1.0, mu=0.25, V0=1.0), omega=1.0)
          >>> print(bound.summary(1e-3, bits_per_message=64))
          theorem      A2: the whole gradient, compressed
          assumptions  F smooth and strongly convex, Q unbiased
          quantity     V = E |x_k - x*|^2
          step_size    0.8
          factor       0.68
          1 - factor   0.32
          initial      1
          floor        0
          messages     1
          iterations   18 to 0.001
          bits         1152 to 0.001
        """
        rows = self._rows()
        if eps is not None:
            rows['iterations'] = f'{_short(self.iterations(eps))} to {_short(eps)}'
        if bits_per_message is not None:
            if eps is None:
                raise ValueError('summary(bits_per_message=...) needs a target: pass eps=... too.')
            rows['bits'] = f'{_short(self.bits(eps, bits_per_message))} to {_short(eps)}'
        return '\n'.join(f'{name:<13}{_short(value)}' for name, value in rows.items())

    def __str__(self) -> str:
        return self.summary()

    @property
    def _name(self) -> str:
        return self.theorem.split(':')[0]

    def _at(self, k: int) -> float:
        if self.initial is None:
            raise ValueError(self._unknown('value', QUANTITIES[self.quantity].needs))
        if QUANTITIES[self.quantity].ergodic:
            return self.floor + (self.initial / k if k else math.inf)
        return self.floor + self.factor**k * self.initial

    def _rows(self) -> dict[str, Any]:
        kind = QUANTITIES[self.quantity]
        rate = {'factor': self.factor, '1 - factor': 1 - self.factor}
        return {
            'theorem': self.theorem,
            'assumptions': self.assumptions,
            'quantity': f'{self.quantity} = {kind.means}',
            'step_size': self.step_size,
            **({'factor': '1, falls as initial / k'} if kind.ergodic else rate),
            'initial': _or_missing(self.initial, kind.needs),
            'floor': _or_missing(self.residual, 'G'),
            'messages': self.messages,
        }

    def _unknown(self, what: str, field: str) -> str:
        return (
            f'Theorem {self._name} gives no {what} without {field}, which this problem lacks. Give '
            f'it as Problem({field}=...), or measure the problem: gradzip.advice.measure. The step '
            'size and the factor do not depend on it.'
        )


def _or_missing(value: float | None, field: str) -> float | str:
    return f'unknown: the problem has no {field}' if value is None else value


def _short(value: Any) -> str:
    """Up to six digits, or all digits of an integer; text stays as it is."""
    if isinstance(value, int):
        return str(value)
    return f'{value:.6g}' if isinstance(value, float) else value
