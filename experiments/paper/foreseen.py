"""A choice of the next message that knows where each candidate leads.

It takes the message with the most progress, in ln(gap), for its cost. No rule that looks one
message ahead knows more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from experiments.problems import Problem
from gradzip import _empirical as empirical

End = tuple[int | None, float | None]  # iterations and cost to the target


def foreseen(
    problem: Problem, price: dict[float, float], step: float | None, target: float, steps: int
) -> End:
    """Iterations and cost until `target` of the first gap, from zero; None if it takes more steps.

    One worker sends TopK of its gradient.

    Args:
      problem: of one worker.
      price: what a message with each fraction of the entries costs.
      step: its size; None for the one to the minimum along the message.
      target: a share of the first gap.
      steps: how many are taken at most.
    """
    w, spent = np.zeros(problem.features), 0.0
    least = empirical.value(problem.risk, problem.optimum)
    start = empirical.value(problem.risk, w) - least
    for k in range(steps):
        gap = empirical.value(problem.risk, w) - least
        if gap <= target * start:
            return k, spent
        found = []
        for fraction, sent in _messages(problem, w, list(price)):
            moved = w - sent * (_best(problem, w, sent) if step is None else step)
            after = max(empirical.value(problem.risk, moved) - least, 1e-12 * start)
            found.append((math.log(gap / after) / price[fraction], price[fraction], moved))
        _, cost, w = max(found, key=lambda each: each[0])
        spent += cost
    return None, None


def _messages(
    problem: Problem, w: np.ndarray, fractions: list[float]
) -> Iterator[tuple[float, np.ndarray]]:
    """The candidates: the largest entries of the gradient."""
    gradient = empirical.gradients(problem.risk, np.asarray(problem.risk.lam), w)[0]
    order = np.argsort(-np.abs(gradient), kind='stable')
    for fraction in fractions:
        kept, sent = order[: math.ceil(round(fraction * len(w), 6))], np.zeros_like(w)
        sent[kept] = gradient[kept]
        yield fraction, sent


def _best(problem: Problem, w: np.ndarray, sent: np.ndarray) -> float:
    """The step to the minimum of the parabola along a message, which is part of the gradient."""
    kind, x, y, weight, lam = problem.risk
    _, curvature = empirical.slopes(kind, x @ w, y, weight)
    along = float(np.sum(curvature * (x @ sent) ** 2) + lam * sent @ sent)
    return float(sent @ sent) / along if along else 0.0
