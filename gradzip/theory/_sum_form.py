"""The constants of a problem in sum form, in which most theorems are proven.

With f = sum_i f_i = n F, a step gamma on f is a step n gamma on F:

    x - gamma sum_i g_i = x - (n gamma) (1/n) sum_i g_i
"""

from __future__ import annotations

from typing import NamedTuple

from gradzip.theory._problem import Problem


class SumForm(NamedTuple):
    """The constants of f = sum_i f_i, named as in the proofs.

    L_max, sigma and G are the same in both forms.
    """

    n: int
    L_f: float  # smoothness of f
    mu: float  # strong convexity of f
    L_max: float
    sigma: float
    L_cov: float  # max_j sum_{i: j in S_i} L_i
    G: float | None


def sum_form(problem: Problem, owner: str) -> SumForm:
    """Returns the constants of f = n F that the theorems on many workers need."""
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
