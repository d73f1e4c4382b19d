"""What can be ranked: each algorithm with its theorem and the exchange that runs it.

A tree of leaves is compressed leaf by leaf, so that omega is the largest of the leaves' constants
and delta the smallest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax

from gradzip import theory
from gradzip._base import AxisName, Compressor, KeyLike, Like, PyTree, memory_like
from gradzip._compressors.identity import Identity
from gradzip._delay import delay
from gradzip._delay_models import Burst, Constant, Cyclic, Delay, Fixed
from gradzip._feedback.compress import compress
from gradzip._feedback.diana import diana
from gradzip._feedback.ef21 import ef21
from gradzip._feedback.error_feedback import error_feedback
from gradzip._feedback.iag import iag
from gradzip._reducers.gather import Gather
from gradzip._reducers.schedule import Schedule
from gradzip._reducers.sum import Sum

EXACT = 'exact mean'
Exchange = Callable[[AxisName | None, KeyLike | None], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """An algorithm with a scheme, before a step size is chosen."""

    method: str
    scheme: str
    family: Callable[..., theory.Bound]
    options: dict[str, Any]
    exchange: Exchange
    compressor: Compressor  # whose payload is a message
    messages: float | None = None  # sent in a step by all workers, if not one by each


def candidates(
    schemes: dict[str, Compressor], likes: list[Like], late: Delay | None, workers: int
) -> Iterator[Candidate]:
    """Yields the exact mean and every algorithm whose theorem covers a scheme."""
    if late is None:
        yield _synchronous(EXACT, Identity(), 0.0, 'distributed')
    else:
        yield _stale(EXACT, Identity(), 0.0, late)
    for name, scheme in schemes.items():
        omega = _largest([scheme.omega(like) for like in likes])
        if late is not None:
            if omega is not None:
                yield _stale(name, scheme, omega, late)
            if omega:
                yield _stored(name, scheme, omega, late, workers)
            continue
        if omega is not None:
            yield _synchronous(name, scheme, omega, 'distributed')
            yield _diana(name, scheme, omega)
        if omega is not None and scheme.linear and scheme.random:
            yield _shared(name, scheme, omega)
        if omega is not None or all(scheme.delta(like) is not None for like in likes):
            deltas = [scheme.contractive(like).delta(like) for like in likes]
            yield from _memories(name, scheme, min(d for d in deltas if d is not None))


def likes_of(params: PyTree) -> list[Like]:
    """Returns the shapes and dtypes of the leaves, as compressors see them."""
    return [memory_like(leaf) for leaf in jax.tree.leaves(params)]


def _synchronous(name: str, scheme: Compressor, omega: float, method: str) -> Candidate:
    exact = isinstance(scheme, Identity)

    def exchange(axis: AxisName | None, key: KeyLike | None) -> optax.GradientTransformation:
        return compress(scheme if exact or axis is None else Gather(scheme), axis, key=key)

    return Candidate(method, name, theory.dcgd, {'omega': omega}, exchange, scheme)


def _shared(name: str, scheme: Compressor, omega: float) -> Candidate:
    def exchange(axis: AxisName | None, key: KeyLike | None) -> optax.GradientTransformation:
        return compress(scheme if axis is None else Sum(scheme), axis, key=key)

    options = {'omega': omega, 'shared': True}
    return Candidate('shared draws', name, theory.dcgd, options, exchange, scheme)


def _diana(name: str, scheme: Compressor, omega: float) -> Candidate:
    def exchange(axis: AxisName | None, key: KeyLike | None) -> optax.GradientTransformation:
        alone = scheme if axis is None else Gather(scheme)
        return diana(alone, axis, alpha=1 / (1 + omega), key=key)

    return Candidate('diana', name, theory.diana, {'omega': omega}, exchange, scheme)


def _memories(name: str, scheme: Compressor, delta: float) -> Iterator[Candidate]:
    def remember(axis: AxisName | None, key: KeyLike | None) -> optax.GradientTransformation:
        return error_feedback(scheme, axis, key=key)

    def estimate(axis: AxisName | None, key: KeyLike | None) -> optax.GradientTransformation:
        return ef21(Schedule((Identity(), scheme), (1,)), axis, key=key)

    options = {'delta': delta}
    yield Candidate('error_feedback', name, theory.ef14, options, remember, scheme)
    yield Candidate('ef21', name, theory.ef21, options, estimate, scheme)


def _stale(name: str, scheme: Compressor, omega: float, late: Delay) -> Candidate:
    now = _synchronous(name, scheme, omega, 'stale').exchange

    def exchange(axis: AxisName | None, key: KeyLike | None) -> optax.GradientTransformation:
        return optax.chain(delay(late, axis, key=key), now(axis, key))

    options = {'omega': omega, 'tau': late.bound}
    return Candidate('stale', name, theory.stale, options, exchange, scheme)


def _stored(name: str, scheme: Compressor, omega: float, late: Delay, workers: int) -> Candidate:
    def exchange(axis: AxisName | None, key: KeyLike | None) -> optax.GradientTransformation:
        return iag(scheme, axis, late, key=key)

    ordered = isinstance(late, Burst | Constant | Cyclic | Fixed)
    options = {'omega': omega, 'tau': late.bound, 'ordered': ordered}
    messages = workers / (late.bound + 1) if isinstance(late, Cyclic) else None
    return Candidate('iag', name, theory.q_iag, options, exchange, scheme, messages)


def _largest(omegas: list[float | None]) -> float | None:
    known = [omega for omega in omegas if omega is not None]
    return max(known) if len(known) == len(omegas) else None
