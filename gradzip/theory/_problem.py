"""What a theorem needs to know of the problem that the workers solve.

    F(x) = (1/n) sum_i f_i(x)

This average form is what a chain optimises, as an exchange yields a mean. All constants are in it.
`sum_form` gives those of f = sum_i f_i = n F, in which most theorems are proven; a step gamma there
is a step n gamma here:

    x - gamma sum_i g_i = x - (n gamma) (1/n) sum_i g_i
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

from gradzip.theory import _assume as assume

SLACK = 1e-9  # relative; constants that are equal on paper differ by rounding
_MEANING = {
    'L_max': "the largest smoothness constant of the workers' losses",
    'G': 'the sum over workers of |grad f_i(x*)|^2',
    'V0': '|x_0 - x*|^2',
    'F0': 'F(x_0) - F*',
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """F = mean of n losses f_i, by its constants.

    Only n, L and mu must be given. What is missing is bounded by what is there, in the way stated
    below, or refused by the theorem that needs it.

    Args:
      n: workers.
      L: smoothness of F.
      mu: strong convexity of F (or its constant in the Polyak-Lojasiewicz inequality, for theorems
        that ask for no more); 0 for none.
      L_max: largest smoothness constant of the f_i. Missing: L if n = 1, else refused if needed.
      L_mean: mean of the L_i. Missing: L_max.
      L_rms: root mean square of the L_i. Missing: sqrt(L_mean L_max).
      sigma: largest eigenvalue of I + A, with A the adjacency matrix of the conflict graph: i and j
        are neighbours if both losses depend on a common coordinate. 1 for disjoint supports.
        Missing: n, which always holds.
      L_cov: (1/n) max over coordinates j of the sum of the L_i that depend on j. F is L_cov-smooth.
        Missing: the smaller of L_mean and sigma L_max / n.
      L_e: |(1/n) sum_i grad f_i(x + u_i) - grad F(x)| <= L_e |u| if no entry of a u_i exceeds that
        of u: min(L_mean, (1/n) sqrt(sigma max_j sum_{i on j} L_i^2)).
        Missing: the smaller of L_mean and sqrt(sigma L_max L_cov / n).
      G: the sum over workers of |grad f_i(x*)|^2, which makes the floor of a bound. 0 means that
        all losses share a minimiser, and sharper constants hold. Missing: 0 if n = 1, else the
        floor is unknown.
      V0: |x_0 - x*|^2. Missing: 2 F0 / mu.
      F0: F(x_0) - F*. Missing: L V0 / 2.

    Raises:
      ValueError: a constant is out of range, or contradicts another, such as L > L_max.
      TypeError: a constant is not a number.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=8, L=0.25, mu=0.05, L_max=1.0, G=0.5, V0=4.0)
      >>> theory.dcgd(problem, omega=3.0).step_size  # 1 / (L + 2 omega L_max / n)
      1.0
    """

    n: int
    L: float
    mu: float
    L_max: float | None = None
    L_mean: float | None = None
    L_rms: float | None = None
    sigma: float | None = None
    L_cov: float | None = None
    L_e: float | None = None
    G: float | None = None
    V0: float | None = None
    F0: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, 'n', assume.integer('Problem', 'n', self.n, 1))
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            if value is not None or field.name in ('L', 'mu'):
                above = field.name not in ('mu', 'G', 'V0', 'F0')  # a constant of curvature
                number = assume.real('Problem', field.name, value, 0, above=above)
                object.__setattr__(self, field.name, number)
        for less, more, why in _ORDER:
            self._ordered(less, more, why)
        if self.sigma is not None and not 1 - SLACK <= self.sigma <= self.n * (1 + SLACK):
            raise ValueError(f'Problem(sigma=...) must be from 1 to n={self.n}; got {self.sigma}.')
        if self.n == 1 and self.G:
            raise ValueError(f'Problem(n=1) has G = 0, as f_1 is F itself; got G={self.G}.')

    def _ordered(self, less: str, more: str, why: str) -> None:
        small, large = getattr(self, less), getattr(self, more)
        if small is not None and large is not None and small > large * (1 + SLACK):
            raise ValueError(
                f'Problem({less}={small}, {more}={large}): {less} <= {more}, since {why}. All '
                'constants are in average form, F = mean of f_i (only G is a sum).'
            )

    def need(self, name: str, owner: str) -> float:
        """The constant, or the bound on it that the others give.

        Raises:
          ValueError: neither is there.
        """
        value = self.known(name)
        if value is None:
            missing = 'L_max' if name not in _MEANING else name
            raise ValueError(
                f'{owner} needs {missing}, {_MEANING[missing]}, and this problem has none. Give it '
                f'as Problem({missing}=...), or measure the problem: gradzip.advice.measure.'
            )
        return value

    def known(self, name: str) -> float | None:
        """The constant, or the bound on it that the others give, or None."""
        value = getattr(self, name)
        return value if value is not None else getattr(self, f'_{name}_from_others')()

    def as_one(self) -> Problem:
        """The same F held by one node, for theorems on the whole gradient (`gd`, `stale_gd`)."""
        return Problem(1, self.L, self.mu, G=0.0, V0=self.V0, F0=self.F0)

    def _L_max_from_others(self) -> float | None:
        return self.L if self.n == 1 else None

    def _L_mean_from_others(self) -> float | None:
        return self.known('L_max')

    def _L_rms_from_others(self) -> float | None:
        mean, largest = self.known('L_mean'), self.known('L_max')  # L_i^2 <= L_max L_i
        return None if mean is None or largest is None else math.sqrt(mean * largest)

    def _sigma_from_others(self) -> float:
        return float(self.n)

    def _L_cov_from_others(self) -> float | None:
        mean, largest = self.known('L_mean'), self.known('L_max')
        sigma = self.need('sigma', 'L_cov')  # at least the number of losses on one coordinate
        return mean if mean is None or largest is None else min(mean, sigma * largest / self.n)

    def _L_e_from_others(self) -> float | None:
        mean, largest, cov = self.known('L_mean'), self.known('L_max'), self.known('L_cov')
        if mean is None or largest is None or cov is None:
            return mean
        return min(mean, math.sqrt(self.need('sigma', 'L_e') * largest * cov / self.n))

    def _G_from_others(self) -> float | None:
        return 0.0 if self.n == 1 else None

    def _V0_from_others(self) -> float | None:
        return None if self.F0 is None or self.mu == 0 else 2 * self.F0 / self.mu

    def _F0_from_others(self) -> float | None:
        return None if self.V0 is None else self.L * self.V0 / 2


_ORDER = (  # less, more, why
    ('mu', 'L', 'a loss is no more strongly convex than smooth'),
    ('L', 'L_max', 'F is the mean of the f_i'),
    ('L', 'L_mean', 'F is the mean of the f_i'),
    ('L', 'L_cov', 'F is L_cov-smooth'),
    ('L', 'L_e', 'F is L_e-smooth'),
    ('L_mean', 'L_rms', 'a mean is at most the root mean square'),
    ('L_mean', 'L_max', 'a mean is at most the maximum'),
    ('L_rms', 'L_max', 'a mean is at most the maximum'),
    ('L_cov', 'L_mean', 'it sums some of the L_i / n'),
    ('L_e', 'L_mean', 'it is the smaller of L_mean and another bound'),
)


class SumForm(NamedTuple):
    """The constants of f = sum_i f_i, in the proofs' letters. L_max, sigma and G are the same."""

    n: int
    L_f: float  # smoothness of f
    mu: float  # strong convexity of f
    L_max: float
    sigma: float
    L_cov: float  # max_j sum_{i: j in S_i} L_i
    G: float | None


def sum_form(problem: Problem, owner: str) -> SumForm:
    """The constants that the theorems on many workers need, of f = n F."""
    n = problem.n
    return SumForm(
        n=n,
        L_f=n * problem.L,
        mu=n * problem.mu,
        L_max=problem.need('L_max', owner),
        sigma=problem.need('sigma', owner),
        L_cov=n * problem.need('L_cov', owner),
        G=problem.known('G'),
    )
