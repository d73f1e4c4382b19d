"""The ranked table, and the chain of one of its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import optax

from gradzip import theory
from gradzip._aligned import aligned
from gradzip._base import AxisName, KeyLike
from gradzip._quantities import duration
from gradzip._ranking.candidates import Candidate

HEADS = ('algorithm', 'scheme', 'theorem', 'step size', 'iterations', 'bits', 'time')


@dataclasses.dataclass(frozen=True)
class Choice:
    """An algorithm with a scheme at its step size, and what its theorem predicts.

    `bits` are those of the messages of all workers until the target; `seconds` is None if no link
    was given. `bound` is a `theory.Bound`, or a `theory.Staged` where a halved step is sooner.
    """

    candidate: Candidate
    bound: theory.Bound | theory.Staged
    iterations: int
    bits: float
    seconds: float | None

    @property
    def method(self) -> str:
        """The name of the algorithm."""
        return self.candidate.method

    @property
    def scheme(self) -> str:
        """The name of the scheme."""
        return self.candidate.scheme

    @property
    def first(self) -> theory.Bound:
        """The bound at the first step size."""
        return self.bound.stages[0].bound if isinstance(self.bound, theory.Staged) else self.bound

    def chain(
        self, axis_name: AxisName | None, *, key: KeyLike | None = None
    ) -> optax.GradientTransformation:
        """Returns the exchange and the descent at this step size.

        Args:
          axis_name: the mapped axis of workers; None for one worker.
          key: for random schemes and delays: an int or a typed key, the same on all workers.
        """
        exchange = self.candidate.exchange(axis_name, key)
        return optax.chain(exchange, theory.scale_by_theory(self.bound))


@dataclasses.dataclass(frozen=True, repr=False)
class Ranking:
    """Algorithms and schemes, the best first: what `gradzip.advice.rank` returns.

    It prints as a table. `ranking[0]` is the best `Choice`, and `len` and iteration work too.
    """

    choices: tuple[Choice, ...]
    target: float
    by: str

    def __getitem__(self, place: int) -> Choice:
        return self.choices[place]

    def __len__(self) -> int:
        return len(self.choices)

    def __iter__(self) -> Iterator[Choice]:
        return iter(self.choices)

    def __repr__(self) -> str:
        lines = aligned([HEADS, *(_cells(choice) for choice in self.choices)], words=3)
        title = f'until E |x - x*|^2 is at most {self.target:.4g}, by {self.by}'
        return '\n'.join([title, *lines])


def _cells(choice: Choice) -> tuple[str, ...]:
    halved = isinstance(choice.bound, theory.Staged) and len(choice.bound.stages) > 1
    return (
        choice.method,
        choice.scheme,
        choice.first.theorem.split(':')[0],
        f'{choice.first.step_size:.4g}{", halved" if halved else ""}',
        f'{choice.iterations:,}',
        f'{choice.bits:.4g}',
        '' if choice.seconds is None else duration(choice.seconds),
    )
