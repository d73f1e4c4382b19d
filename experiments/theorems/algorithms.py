"""What is run: the paper's algorithms, each with the step-size of its theorem.

A `Row` is one algorithm with one compressor under one delay. Its step is the one with which the
theorem's bound reaches the target soonest (`gradzip.theory.for_target`). Nothing is tuned.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import optax

import gradzip as gz
from experiments.simulate import AXIS
from gradzip import theory

PROBABILITY = 0.25  # of Bernoulli: three quarters of the entries stay at home
LEVELS = 7  # of QSGD, l2 norm: codes of four bits
FRACTION = 0.25  # of TopK, as many entries as Bernoulli keeps on average
BATCH = 2  # workers in a mini-batch
TARGET = 1e-2  # of |x_0 - x*|^2: a tenth of the distance
HYPERPARAMETERS = (
    f'Bernoulli keeps an entry with probability {PROBABILITY}, TopK the largest {FRACTION:.0%}, '
    f'QSGD has {LEVELS} levels and the l2 norm, a mini-batch {BATCH} workers. Bits are those of '
    'the arrays that are sent; Bernoulli has room for all entries that a draw may keep.'
)

Key = jax.Array
Like = jax.ShapeDtypeStruct
Algorithm = Literal['gradient descent', 'mini-batch', 'distributed', 'stale', 'Q-IAG']


@dataclasses.dataclass(frozen=True)
class Scheme:
    """What a worker's gradient becomes."""

    name: str  # on the command line and in files
    label: str  # for people
    compressor: gz.Compressor
    memory: bool = False
    shared: bool = False  # all workers draw the same

    def exchange(self, axis: str | None, key: Key) -> optax.GradientTransformation:
        """The mean over an axis of what the workers send; on one node (None) what it sends."""
        verb = gz.error_feedback if self.memory else gz.compress
        scheme = self.compressor if self.shared or axis is None else gz.Gather(self.compressor)
        return verb(scheme, axis, key=key)


NONE = Scheme('none', 'no compression', gz.Identity())
UNBIASED = (
    Scheme('bernoulli', 'Bernoulli', gz.Bernoulli(PROBABILITY)),
    Scheme('ternary', 'ternary', gz.Ternary('l2')),
    Scheme('qsgd', 'QSGD', gz.QSGD(LEVELS, block=None, norm='l2')),
)
SHARED = Scheme('shared', 'Bernoulli, shared mask', gz.Bernoulli(PROBABILITY), shared=True)
TOPK = Scheme('topk', 'TopK + memory', gz.TopK(FRACTION), memory=True)
SCHEMES = (NONE, *UNBIASED, SHARED, TOPK)
NOW = gz.Constant(0)  # no delay


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: what runs, at which step, and what the theorem says of it."""

    algorithm: Algorithm
    scheme: Scheme
    delay: gz.Delay
    bound: theory.Bound | None  # None: no theorem covers it
    step_size: float
    shortened: bool  # the theorem's longest step reaches the target later, or never
    messages: float  # sent in one iteration by all workers
    make: Callable[[Key], optax.GradientTransformation]

    @property
    def shift(self) -> int:
        """Iterations at the start in which nothing has arrived: a constant delay's."""
        return self.delay.bound if self.delay.starts_from_zero else 0

    @property
    def random(self) -> bool:
        """Whether seeds differ."""
        return self.delay.random or self.scheme.compressor.random or self.algorithm == 'mini-batch'

    @property
    def title(self) -> str:
        return ' '.join(filter(None, (self.algorithm, delay_label(self.delay))))

    def bound_at(self, iteration: int) -> float:
        """The bound on E|x - x*|^2 of the run, which starts `shift` iterations late."""
        assert self.bound is not None
        return self.bound.at(max(0, iteration - self.shift))

    def predicted(self, accuracy: float) -> float:
        """Iterations of the run until the bound is at most `accuracy`; infinity if never."""
        assert self.bound is not None
        return self.bound.iterations(accuracy) + self.shift


def delay_label(delay: gz.Delay) -> str:
    """In words, for the table and the figures."""
    if delay.bound == 0:
        return ''
    how = {gz.Constant: 'always', gz.Uniform: 'random to', gz.Cyclic: 'in turns to'}[type(delay)]
    return f'{how} {delay.bound}'


def rows(problem: theory.Problem, like: Like, delays: list[int], names: list[str]) -> list[Row]:
    """Every algorithm with every scheme that it takes; of the schemes those named."""
    return [row for row in _all(problem, like, delays) if row.scheme.name in names]


def _all(problem: theory.Problem, like: Like, delays: list[int]) -> Iterator[Row]:
    for scheme in (NONE, *UNBIASED, TOPK):
        yield _gradient_descent(problem, like, scheme)
    for scheme in (NONE, *UNBIASED):
        yield _minibatch(problem, like, scheme)
    for scheme in SCHEMES:
        yield _distributed(problem, like, scheme)
    for tau in delays:
        for model in (gz.Constant(tau), gz.Uniform(tau)):
            for scheme in (NONE, *UNBIASED, TOPK):
                yield _stale(problem, like, scheme, model)
        for scheme in (NONE, *UNBIASED):
            yield _q_iag(problem, like, scheme, gz.Cyclic(tau + 1))


def _gradient_descent(problem: theory.Problem, like: Like, scheme: Scheme) -> Row:
    """Theorem A2, with memory EF14 on one node: the data are in one place, and it compresses."""
    one, compressor = problem.as_one(), scheme.compressor
    if scheme.memory:
        theorem = _Theorem(theory.ef14, one, {'delta': compressor.delta(like)})
    else:
        theorem = _Theorem(theory.gd, one, {'omega': compressor.omega(like)})

    def before(key: Key) -> optax.GradientTransformation:
        return optax.chain(gz.compress(gz.Identity(), AXIS), scheme.exchange(None, key))

    return _row('gradient descent', scheme, NOW, theorem, before)


def _minibatch(problem: theory.Problem, like: Like, scheme: Scheme) -> Row:
    """Theorem B1."""
    options = {'omega': scheme.compressor.omega(like), 'batch': BATCH}

    def before(key: Key) -> optax.GradientTransformation:
        who, what = jax.random.split(key)
        return optax.chain(gz.participate(BATCH, AXIS, key=who), scheme.exchange(AXIS, what))

    theorem = _Theorem(theory.minibatch, problem, options)
    return _row('mini-batch', scheme, NOW, theorem, before)


def _distributed(problem: theory.Problem, like: Like, scheme: Scheme) -> Row:
    """Theorem C1; with a shared mask C''; with memory EF14."""
    if scheme.memory:
        theorem = _Theorem(theory.ef14, problem, {'delta': scheme.compressor.delta(like)})
    else:
        options = {'omega': scheme.compressor.omega(like), 'shared': scheme.shared}
        theorem = _Theorem(theory.dcgd, problem, options)
    before = functools.partial(scheme.exchange, AXIS)
    return _row('distributed', scheme, NOW, theorem, before)


def _stale(problem: theory.Problem, like: Like, scheme: Scheme, model: gz.Delay) -> Row:
    """Theorem T1. Of a memory behind a delay no theorem speaks: the shorter of two steps."""

    def before(key: Key) -> optax.GradientTransformation:
        when, what = jax.random.split(key)
        return optax.chain(gz.delay(model, AXIS, key=when), scheme.exchange(AXIS, what))

    if scheme.memory:
        late = theory.stale(problem, 0.0, model.bound).step_size
        lossy = theory.ef14(problem, scheme.compressor.delta(like)).step_size
        step = min(late, lossy)
        return Row('stale', scheme, model, None, step, False, problem.n, _chain(before, step))
    options = {'omega': scheme.compressor.omega(like), 'tau': model.bound}
    return _row('stale', scheme, model, _Theorem(theory.stale, problem, options), before)


def _q_iag(problem: theory.Problem, like: Like, scheme: Scheme, model: gz.Delay) -> Row:
    """Theorem T2; without compression T1, which allows any late gradients. Workers take turns."""
    omega, messages = scheme.compressor.omega(like), problem.n / (model.bound + 1)
    options = {'omega': omega, 'tau': model.bound, **({'ordered': True} if omega else {})}
    family = theory.q_iag if omega else theory.stale

    def before(key: Key) -> optax.GradientTransformation:
        return gz.iag(scheme.compressor, AXIS, model, key=key)

    theorem = _Theorem(family, problem, options)
    return _row('Q-IAG', scheme, model, theorem, before, messages)


class _Theorem(NamedTuple):
    """A function of `gradzip.theory` and what it takes."""

    family: Callable[..., theory.Bound]
    problem: theory.Problem
    options: dict[str, Any]


def _row(
    algorithm: Algorithm,
    scheme: Scheme,
    model: gz.Delay,
    theorem: _Theorem,
    before: Callable[[Key], optax.GradientTransformation],
    messages: float | None = None,
) -> Row:
    """The row at the step-size with which its theorem reaches the target soonest."""
    family, problem, options = theorem
    eps = TARGET * problem.need('V0', 'The table')
    bound, longest = theory.for_target(family, problem, eps, **options), family(problem, **options)
    assert bound.quantity == 'V'
    if messages is not None:
        bound = dataclasses.replace(bound, messages=messages)
    step = bound.step_size
    shortened = step < 0.999 * longest.step_size
    make = _chain(before, step)
    return Row(algorithm, scheme, model, bound, step, shortened, bound.messages, make)


def _chain(
    before: Callable[[Key], optax.GradientTransformation], step: float
) -> Callable[[Key], optax.GradientTransformation]:
    return lambda key: optax.chain(before(key), optax.sgd(step))
