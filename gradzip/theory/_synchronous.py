"""Sections B and C: many workers, no delay. The proofs are about f = sum_i f_i, with step gamma.

    B   x_{k+1} = x_k - gamma (n/b) sum_{i in B_k} Q_i(grad f_i(x_k)),   B_k a random b-subset
    C   x_{k+1} = x_k - gamma sum_i Q_i(grad f_i(x_k))

Both satisfy E|g|^2 <= A |grad f|^2 + B sum_i |grad f_i|^2, from which `_cocoercive` concludes. With
xi_i = Q_i(grad f_i) - grad f_i, of mean zero, E|g|^2 is that of the exact mini-batch, which follows
from sampling without replacement, plus (n/b)^2 E|sum_{i in B_k} xi_i|^2. For independent workers
this is at most (n/b) omega sum_i |grad f_i|^2, and in any dependence min(b, sigma) times that,
because xi_i is zero wherever grad f_i is (F1: |sum_i v_i|^2 <= sigma sum_i |v_i|^2).
"""

from __future__ import annotations

import dataclasses

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._cocoercive import conclude
from gradzip.theory._descent import gd
from gradzip.theory._problem import Problem
from gradzip.theory._sum_form import sum_form

_ALONE = 'Q unbiased, workers independent'
_ANYHOW = 'Q unbiased, workers in any dependence'


def minibatch(
    problem: Problem,
    omega: float | None,
    batch: int,
    *,
    step_size: float | None = None,
    split: float = 1.0,
    shared: bool = False,
) -> Bound:
    """Theorems B1 and B2: in every step, `batch` random workers send compressed gradients.

    With omega = 0 this is mini-batch gradient descent, and with batch = 1 the incremental method.
    For batch = n it is theorem C.

    Args:
      problem: the theorem needs L_max, the floor needs G, and values of the bound need V0.
      omega: constant of an unbiased compressor, 0 without compression. None (biased) raises.
      batch: number of workers in a step, drawn without replacement. Their sum is scaled by
        n / batch, as in `gradzip.participate`.
      step_size: where to evaluate the bound. The default is the step of the best rate.
      split: more than 1 lowers the floor and shortens the step, less than 1 does the opposite.
        `for_target` finds the best. Without effect if G = 0.
      shared: whether the workers share their randomness (theorem B'). Unless sigma = n, it then
        also needs that Q(v) is zero wherever v is.

    Returns:
      A `Bound` on 'V' (B1), or for mu = 0 on 'F_mean' (B2), with a floor unless G = 0.

    Raises:
      ValueError: omega is None (biased), or the step is too long.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=8, L=1.0, mu=0.1, L_max=2.0, G=0.0)
      >>> theory.minibatch(problem, omega=0.0, batch=1).step_size  # 1 / L_max
      0.5

    Reference: the setting is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573 (and
      their CDC 2017 paper on mini-batches); the constants are derived here.
    """
    omega = assume.unbiased('Theorem B1', omega)
    shared = assume.flag('minibatch', 'shared', shared)
    b = assume.integer('minibatch', 'batch', batch, 1, problem.n)
    s = sum_form(problem, 'Theorem B1')
    A = 1.0 if b == s.n else s.n * (b - 1) / (b * (s.n - 1))
    B = batch_noise(s.n, b, omega * (min(b, s.sigma) if shared else 1))
    name = "B'" if shared else 'B1' if s.mu > 0 else 'B2'
    about = _ANYHOW if shared else _ALONE
    title = f'{name}: {b} random workers a step'
    return conclude(title, about, s, A, B, problem, step_size, b, split)


def batch_noise(n: int, b: int, omega: float) -> float:
    """Returns the B of b of n workers: sampling without replacement, and the compressor's noise."""
    return n / b * ((0.0 if b == n else (n - b) / (n - 1)) + omega)


def dcgd(
    problem: Problem,
    omega: float | None,
    *,
    shared: bool = False,
    linear: bool = True,
    step_size: float | None = None,
    split: float = 1.0,
) -> Bound:
    """Distributed compressed gradient descent: theorems C1, C2 (mu = 0), C', C''.

    | noise of the workers | theorem | floor |
    |---|---|---|
    | independent (`gradzip.Gather`) | C1, C2 | in omega G |
    | shared, linear compressor: one mask for all (`gradzip.Sum`) | C'' | none |
    | shared=True, linear=False: dependent in any way | C' | in sigma omega G |

    Args:
      problem: the theorems need L_max, except for C''. The floor needs G, and values of the bound
        need V0.
      omega: constant of an unbiased compressor, 0 without compression. Of several compressors,
        take the largest. None (biased) raises.
      shared: whether the workers share their randomness.
      linear: whether sum_i Q(g_i) = Q(sum_i g_i) when they share it. Unless sigma = n, C' also
        needs that Q(v) is zero wherever v is.
      step_size: where to evaluate the bound. The default is the step of the best rate.
      split: more than 1 lowers the floor and shortens the step, less than 1 does the opposite.
        `for_target` finds the best. Without effect if there is no floor.

    Returns:
      A `Bound` on 'V', or for mu = 0 on 'F_mean'.

    Raises:
      ValueError: omega is None (biased), or the step is too long.
      TypeError: an argument is not a number, or a flag is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=4, L=1.0, mu=0.5, L_max=1.0, G=1.0, V0=1.0)
      >>> alone = theory.dcgd(problem, omega=3.0)
      >>> masked = theory.dcgd(problem, omega=3.0, shared=True)
      >>> alone.step_size, round(alone.floor, 6)  # 1 / (mu + 2 omega L_max / n)
      (0.5, 0.375)
      >>> round(masked.step_size, 3), masked.floor  # 2 / (alpha (mu + L))
      (0.333, 0.0)

    Reference: the setting is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573; the
      constants are derived here.
    """
    omega = assume.unbiased('Theorem C (theory.dcgd)', omega)
    shared, linear = assume.flag('dcgd', 'shared', shared), assume.flag('dcgd', 'linear', linear)
    if shared and linear:  # C'': sum_i Q(grad f_i) = Q(grad f), so theorem A applies
        bound = gd(problem, omega, shared=True, step_size=step_size)
        title = "C'': the workers share one linear compressor (theorem {})"
        name = bound.theorem.split(':')[0]
        assumptions = bound.assumptions + ', Q linear and the same on all workers'
        return dataclasses.replace(bound, theorem=title.format(name), assumptions=assumptions)
    s = sum_form(problem, 'Theorem C1')
    if shared:
        title = "C': dependent compressors"
        return conclude(title, _ANYHOW, s, 1.0, s.sigma * omega, problem, step_size, s.n, split)
    title = f'{"C1" if s.mu > 0 else "C2"}: every worker compresses its own gradient'
    return conclude(title, _ALONE, s, 1.0, omega, problem, step_size, s.n, split)
