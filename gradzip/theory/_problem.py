"""The constants of a problem, in average form.

    F(x) = (1/n) sum_i f_i(x)

is the mean of the workers' losses, because an exchange yields the mean of the gradients. `Problem`
holds the constants of F.
"""

from __future__ import annotations

import dataclasses
import math

from gradzip.theory import _assume as assume

SLACK = 1e-9  # relative; constants that are equal on paper differ by rounding
VALUE_SLACK = 1e-6  # relative, for V0 and F0, which are often computed in float32
_MEANING = {
    'L_max': "the largest smoothness constant of the workers' losses",
    'G': 'the sum over workers of |grad f_i(x*)|^2',
    'V0': '|x_0 - x*|^2',
    'F0': 'F(x_0) - F*',
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """The constants of F = mean of n losses f_i.

    Only n, L and mu must be given. A missing constant is replaced by the bound stated below, or, if
    there is none, the theorem that needs it raises an error.

    Args:
      n: number of workers.
      L: smoothness of F.
      mu: strong convexity of F, or 0. For theorems that need no convexity it may be the constant
        of the Polyak-Lojasiewicz inequality instead.
      L_max: largest smoothness constant of the f_i. Missing: L if n = 1.
      L_mean: mean of the L_i. Missing: L_max.
      L_rms: root mean square of the L_i. Missing: sqrt(L_mean L_max).
      sigma: largest eigenvalue of I + A, with A the adjacency matrix of the conflict graph, in
        which two losses are neighbours if they depend on a common coordinate. It is 1 for disjoint
        supports. Missing: n, which is always an upper bound.
      L_cov: (1/n) max over coordinates j of the sum of the L_i of the losses that depend on j. F is
        L_cov-smooth. Missing: the smaller of L_mean and sigma L_max / n.
      L_e: |(1/n) sum_i grad f_i(x + u_i) - grad F(x)| <= L_e |u| for all u_i whose entries are at
        most those of u in absolute value: min(L_mean, (1/n) sqrt(sigma max_j sum_{i on j} L_i^2)).
        Missing: the smaller of L_mean and sqrt(sigma L_max L_cov / n).
      G: the sum over workers of |grad f_i(x*)|^2, to which the floor of a bound is proportional. 0
        means that all losses share a minimiser; the bounds are then sharper. Missing: 0 if n = 1,
        otherwise the floor is unknown.
      V0: |x_0 - x*|^2, with x* the nearest minimiser. Missing: 2 F0 / mu.
      F0: F(x_0) - F*. Missing: L V0 / 2.

    Raises:
      ValueError: a constant is out of range, or contradicts another, such as L > L_max, L above
        sigma L_max / n, or F0 outside of [mu V0 / 2, L V0 / 2].
      TypeError: a constant is not a number.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=8, L=0.25, mu=0.05, L_max=1.0, G=0.5, V0=4.0)
      >>> theory.dcgd(problem, omega=3.0).step_size  # 1 / (mu + 2 omega L_max / n)
      1.25
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
        if self.sigma is not None and not 1 - SLACK <= self.sigma <= self.n * (1 + SLACK):
            raise ValueError(f'Problem(sigma=...) must be from 1 to n={self.n}; got {self.sigma}.')
        if self.n == 1 and self.G:
            raise ValueError(f'Problem(n=1) has G = 0, as f_1 is F itself; got G={self.G}.')
        for less, more, why in _ORDER:
            self._ordered(less, getattr(self, less), more, getattr(self, more), why)
        self._consistent()

    def _consistent(self) -> None:
        """Checks the inequalities between more than two constants; `_ORDER` has the others."""
        n, most = self.n, self.L_max
        if most is not None:
            if self.sigma is not None:
                widest = self.sigma * most / n
                why = 'F is L_cov-smooth and at most sigma losses depend on one coordinate'
                self._ordered('L', self.L, 'sigma L_max / n', widest, why)
            why = 'one of the n losses has the constant L_max'
            self._ordered('L_max / n', most / n, 'L_mean', self.L_mean, why)
            self._ordered('L_max / sqrt(n)', most / math.sqrt(n), 'L_rms', self.L_rms, why)
            self._ordered('L_max / n', most / n, 'L_cov', self.L_cov, why)
        if self.V0 is not None:
            least, largest = self.mu * self.V0 / 2, self.L * self.V0 / 2
            why = 'F grows at least as mu/2 |x - x*|^2'
            self._ordered('mu V0 / 2', least, 'F0', self.F0, why, VALUE_SLACK)
            why = 'F is L-smooth and grad F(x*) = 0'
            self._ordered('F0', self.F0, 'L V0 / 2', largest, why, VALUE_SLACK)

    def _ordered(
        self,
        less: str,
        small: float | None,
        more: str,
        large: float | None,
        why: str,
        slack: float = SLACK,
    ) -> None:
        if small is not None and large is not None and small > large * (1 + slack):
            raise ValueError(
                f'Problem has {less} = {small} above {more} = {large}, but {less} <= {more}, since '
                f'{why}. All constants are in average form, F = mean of f_i (only G is a sum).'
            )

    def need(self, name: str, owner: str) -> float:
        """Returns the constant, or the bound on it that the others give.

        Raises:
          ValueError: there is neither.
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
        """Returns the constant, the bound on it that the others give, or None."""
        value = getattr(self, name)
        return value if value is not None else getattr(self, f'_{name}_from_others')()

    def as_one(self) -> Problem:
        """Returns the same F on one node, for theorems on the whole gradient (`gd`, `stale_gd`)."""
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
    ('mu', 'L', 'a function is at most as strongly convex as it is smooth'),
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
