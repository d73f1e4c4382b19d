"""Workers and a server that pass messages: what the chains must do, written out in NumPy.

Every worker and every message is an object of its own, and nothing here knows of rings, keys or
axes. A worker computes a gradient at every step, and its age says how many steps ago the one was
computed that is used now.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np


@dataclasses.dataclass
class Message:
    """What a worker has sent."""

    born: int  # the step in whose parameters its gradient was computed
    content: np.ndarray


@dataclasses.dataclass
class Worker:
    """One row of a logistic regression, multiplied by its label."""

    row: np.ndarray
    compress: Callable[[np.ndarray, int], np.ndarray]  # of a vector, at a step
    memory: np.ndarray | None  # of what was not sent; None for a worker without a memory
    gradients: list[np.ndarray] = dataclasses.field(default_factory=list)
    sent: list[Message] = dataclasses.field(default_factory=list)

    def gradient(self, w: np.ndarray) -> np.ndarray:
        return -self.row / (1 + np.exp(self.row @ w))

    def message(self, gradient: np.ndarray, step: int, born: int) -> Message:
        """Compresses a gradient, with what was not sent of earlier ones."""
        target = gradient if self.memory is None else gradient + self.memory
        message = Message(born, self.compress(target, step))
        if self.memory is not None:
            self.memory = target - message.content
        self.sent.append(message)
        return message

    def late(self, step: int, age: int) -> np.ndarray:
        """The gradient of some steps ago; zeros if none has been computed by then."""
        return self.gradients[step - age] if age <= step else np.zeros_like(self.row)


def fresh(
    workers: list[Worker], ages: np.ndarray, rate: float, correct: Callable | None = None
) -> np.ndarray:
    """Late gradients that are compressed when they are used: the weights after every step.

    Args:
      workers: with their rows and memories.
      ages: i[steps, workers]; an age above the step means that nothing has arrived yet.
      rate: the step size.
      correct: what is made of a late gradient, given the worker's number, the parameters now, and
        those at which it was computed.
    """
    w = np.zeros_like(workers[0].row)
    path = [w]
    for step, row in enumerate(ages):
        messages = []
        for number, (worker, age) in enumerate(zip(workers, row, strict=True)):
            worker.gradients.append(worker.gradient(w))
            gradient, born = worker.late(step, age), max(step - age, 0)
            if correct is not None:
                gradient = correct(number, gradient, w, path[born])
            messages.append(worker.message(gradient, step, born))
        w = w - rate * np.mean([message.content for message in messages], axis=0)
        path.append(w)
    return np.stack(path[1:])


def reused(workers: list[Worker], ages: np.ndarray, rate: float) -> np.ndarray:
    """Messages that are compressed once, and stay in the server's table until another arrives."""
    w = np.zeros_like(workers[0].row)
    path = []
    for step, row in enumerate(ages):
        table = []
        for worker, age in zip(workers, row, strict=True):
            worker.message(worker.gradient(w), step, step)
            table.append(worker.sent[max(step - age, 0)].content)
        w = w - rate * np.mean(table, axis=0)
        path.append(w)
    return np.stack(path)


def events(
    workers: list[Worker], arrivals: list[tuple[int, int]], rates: Iterator[float]
) -> np.ndarray:
    """A server that applies one gradient a step: (worker, step of birth) for every arrival."""
    w = np.zeros_like(workers[0].row)
    path = [w]
    for step, ((number, born), rate) in enumerate(zip(arrivals, rates, strict=True)):
        worker = workers[number]
        w = w - rate * worker.message(worker.gradient(path[born]), step, born).content
        path.append(w)
    return np.stack(path[1:])


def within_budget(ages: list[int], share: float | None) -> list[float]:
    """The factors of the two adaptive rules, by their definition: a share, or 1 / (1 + age)."""
    factors: list[float] = []
    for k, age in enumerate(ages):
        left = 1 - sum(factors[max(k - age, 0) : k])
        if share is not None:
            factors.append(share * max(0.0, left))
        else:
            factors.append(1 / (1 + age) if 1 / (1 + age) <= left + 1e-9 else 0.0)
    return factors
