"""Theorem A6: one node sends a random block of coordinates, with the smoothness of each block.

    x+ = x - (gamma / p_b) grad_b F(x) on the block b drawn with probability p_b, and x elsewhere

With |grad_b F(x + u) - grad_b F(x)| <= L_b |u| for u on the block b,

    E F(x+) <= F - sum_b gamma (1 - gamma L_b / (2 p_b)) |grad_b F|^2
            <= F - gamma (1 - gamma M/2) |grad F|^2

with M = max_b L_b / p_b. The rest is that of A1 and A4 (`_descent`).
"""

from __future__ import annotations

from collections.abc import Sequence

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem


def random_block(
    problem: Problem,
    smoothness: Sequence[float],
    probabilities: Sequence[float] | None = None,
    *,
    step_size: float | None = None,
) -> Bound:
    """Theorem A6: a random block of the gradient, scaled by the inverse of its probability.

    `gd` with the omega of the sampler, 1 / min(p) - 1, holds too. It knows L, but not the blocks.

    Args:
      problem: n = 1, or workers that draw the same block. mu may be the constant of the
        Polyak-Lojasiewicz inequality. Values of the bound need F0.
      smoothness: the smoothness L_b of F on each block.
      probabilities: of each block. The default, L_b / sum of all L_b, gives the longest step.
      step_size: where to evaluate the bound, below twice the default 1 / max_b(L_b / p_b).

    Returns:
      A `Bound` on 'F' without a floor; for mu = 0 on 'gradient_mean'.

    Raises:
      ValueError: there are no blocks, probabilities do not match them or do not sum to 1, or the
        step is too long.
      TypeError: an argument is not a number.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=1, L=4.0, mu=0.5, F0=1.0)
      >>> theory.random_block(problem, [4.0, 1.0]).step_size  # 1 / sum of L_b
      0.2

    Reference: Nesterov, 2012, "Efficiency of coordinate descent methods on huge-scale optimization
      problems"; the proof is given here.
    """
    L = [assume.real('random_block', 'smoothness', each, 0, above=True) for each in smoothness]
    if not L:
        raise ValueError('random_block(smoothness=...) must have one number for each block.')
    if probabilities is None:
        p = [each / sum(L) for each in L]
    else:
        p = [
            assume.real('random_block', 'probabilities', each, 0, 1, above=True)
            for each in probabilities
        ]
        if len(p) != len(L) or abs(sum(p) - 1) > 1e-6:
            raise ValueError(
                f'random_block(probabilities=...) must be {len(L)} numbers, one for each block, '
                f'that sum to 1; got {list(probabilities)!r}.'
            )
    M = max(each / chance for each, chance in zip(L, p, strict=True))
    gamma = assume.step_size('Theorem A6', step_size, 1 / M, 2 / M, below=True)
    progress = gamma * (1 - gamma * M / 2)
    title, F0, n = 'A6: a random block of the gradient', problem.known('F0'), problem.n
    if problem.mu > 0:
        factor = 1 - 2 * problem.mu * progress
        about = 'F smooth on every block and Polyak-Lojasiewicz'
        return Bound(title, about, 'F', gamma, factor, F0, 0.0, n)
    initial = None if F0 is None else F0 / progress
    return Bound(title, 'F smooth on every block', 'gradient_mean', gamma, 1.0, initial, 0.0, n)
