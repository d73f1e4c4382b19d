"""The step size at which a theorem reaches a target soonest."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

from gradzip.theory import _assume as assume, _search as search
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem
from gradzip.theory._quantity import QUANTITIES

Family = Callable[..., Bound]
SHORTEST = 0.01  # of the longest step whose floor is below the target; the best is above a tenth
SPLITS = 1 / 64, 64.0  # between which `split` is searched


def for_target(family: Family, problem: Problem, eps: float, *args: Any, **kwargs: Any) -> Bound:
    """Returns the bound of a theorem at the step size that brings it to eps soonest.

    The longest step of a theorem may have a floor above eps, and a step that is much too short
    takes long. Between the two, this searches for the fewest iterations of the bound, over the step
    and, where the theorem has one, over `split`. A floor that falls to any eps as the step falls is
    common to all theorems here but one, `ef21_momentum`, whose floor its eta decides.

    Args:
      family: a function of `gradzip.theory` that takes step_size=, such as `theory.stale`.
      problem: with V0 or F0, and G where the theorem has a floor.
      eps: the target, in the quantity that the theorem bounds: 0.01 * problem.V0, say.
      args: what the family takes after the problem, such as omega and tau.
      kwargs: its options, without step_size. A `split` that is given is kept.

    Returns:
      A `Bound` whose `iterations(eps)` is finite.

    Raises:
      ValueError: eps is not above 0, no step reaches it, or as the family raises.
      TypeError: step_size is given, or as the family raises.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=8, L=1.0, mu=0.1, L_max=1.0, G=0.1, V0=1.0)
      >>> longest = theory.stale(problem, 3.0, tau=4)
      >>> longest.iterations(0.01)  # its floor is above the target
      inf
      >>> best = theory.for_target(theory.stale, problem, 0.01, 3.0, tau=4)
      >>> round(best.step_size, 3), best.iterations(0.01)
      (0.093, 647)
    """
    eps = assume.real('for_target', 'eps', eps, 0, above=True)
    if 'step_size' in kwargs:
        raise TypeError('for_target finds the step size: leave step_size= out.')
    make = functools.partial(family, problem, *args, **kwargs)
    longest = make()
    longest.iterations(eps)  # raises where a constant is missing
    if not _splits(family, kwargs) or longest.floor == 0:
        return _reaching(_at_split(make, eps), eps)
    return _reaching(_over_splits(make, eps), eps)


def _over_splits(make: Callable[..., Bound], eps: float) -> Bound:
    """Returns the best bound over `split` and the step."""

    @functools.cache
    def best(split: float) -> Bound:
        return _at_split(functools.partial(make, split=split), eps)

    return best(search.least(lambda split: iterations(best(split), eps), *SPLITS, 7, 8))


def _at_split(make: Callable[..., Bound], eps: float) -> Bound:
    """Returns the best bound over the step."""
    longest = make()
    high = longest.step_size
    if longest.floor >= eps:  # a floor grows with the step
        low = 0.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if make(step_size=middle).floor < eps else (low, middle)
            if low > 0 and high - low < 1e-6 * high:
                break
        if low == 0:
            return longest
        high = low

    def cost(step: float) -> float:
        return iterations(make(step_size=step), eps)

    step = search.least(cost, SHORTEST * high, high, 24, 16)
    return longest if step == longest.step_size else make(step_size=step)


def iterations(bound: Bound, eps: float) -> float:
    """Returns when the bound reaches eps, as a real number, which a search needs."""
    if bound.initial is None or bound.floor >= eps:
        return math.inf
    if QUANTITIES[bound.quantity].ergodic:
        return bound.initial / (eps - bound.floor)
    if bound.factor == 0:
        return 1.0
    return max(0.0, math.log(bound.initial / (eps - bound.floor))) / -math.log(bound.factor)


def _splits(family: Family, kwargs: dict[str, Any]) -> bool:
    return 'split' in inspect.signature(family).parameters and 'split' not in kwargs


def _reaching(bound: Bound, eps: float) -> Bound:
    if math.isinf(bound.iterations(eps)):
        raise ValueError(
            f'No step size of theorem {bound.theorem.split(":")[0]} reaches {eps:.6g}: its floor '
            f'is {bound.floor:.6g} at step size {bound.step_size:.6g}. Take a larger eps.'
        )
    return bound
