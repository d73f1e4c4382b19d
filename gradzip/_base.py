"""The two protocols, their results, and the one marker.

A gradient's way through the library:

    updates --(feedback: add memory)--> target --(leaves: one reducer a leaf)--> Reducer.reduce
      Reducer:  Compressor.encode -> payload words -> collective -> Compressor.decode_mean
    Reduced.mean leaves as the update;  target - Reduced.sent  stays as memory.

A `Compressor` turns one array into a payload and back and never hears of an axis. A `Reducer`
averages arrays over the workers of an axis and is the only thing that communicates. A
transformation (`gradzip._feedback`) decides what a worker remembers, in terms of `mean` and `sent`
alone. So any compressor goes with any reducer that accepts it, any reducer with any memory, and all
of them with any optimizer. Three laws bind the three families (tests/test_law_*.py):

    compressor   decode(encode(x)) has x's shape and dtype, and the declared omega or delta holds
    reducer      pmean(sent) == mean
    feedback     sum of updates + pmean(error) == sum of mean gradients

A compressor states what the theory needs to know of it: `omega` if it is unbiased,
E|Q(x) - x|^2 <= omega |x|^2; `delta` if it is contractive, E|C(x) - x|^2 <= (1 - delta) |x|^2.
A memory needs contraction, so a compressor that is only unbiased has a contractive twin
(`Compressor.contractive`): Q / (1 + omega), or a least-squares scale that is never worse.

Subnormal numbers (below 2^-126 in float32) count as zero in arithmetic on CPU and TPU; XLA keeps
them on GPU unless `xla_gpu_ftz` is set. The laws hold up to that: a sum such as gradient + memory,
a scale, a mean over workers and a remainder x - decode(payload) each lose less than 2^-126 an
entry. Compressors that keep entries as they are (`TopK`, `BlockTopK`, `Threshold`, `Energy`) copy
them without arithmetic, so what they send and what remains add up to x exactly on every platform.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array
Key = chex.PRNGKey
PyTree = Any
Payload = Any
State = Any
AxisName = str | tuple[str, ...]
Like = jax.ShapeDtypeStruct
KeyLike = int | Key

LARGE_LEAF = Like((1 << 20,), jnp.float32)  # where a class is asked whether it states a constant


@dataclasses.dataclass(frozen=True)
class Compressor(abc.ABC):
    """One array to one payload and back. Pure, and every shape is static.

    Subclasses are frozen dataclasses of hyperparameters. `linear` promises that the mean of
    payloads decodes to the mean of the arrays (for one key), `random` that the key is used,
    `sparse` that the payload has `values`, entries of the array that a second compressor may encode
    (`A >> B`), `in_place` that `remainder` leaves most entries where they are. A class that states
    `omega` also defines `scaled`. Whether a constant is None is the class's affair, never the
    leaf's.
    """

    linear: ClassVar[bool] = False
    random: ClassVar[bool] = False
    sparse: ClassVar[bool] = False
    in_place: ClassVar[bool] = False

    @abc.abstractmethod
    def encode(self, x: Array, key: Key) -> Payload:
        """The payload of one array: a NamedTuple of arrays, their shapes a function of x's."""

    @abc.abstractmethod
    def decode(self, payload: Payload, like: Like, key: Key) -> Array:
        """What a payload stands for, in like's shape and dtype, with the key that encode had."""

    def decode_mean(self, payloads: Payload, like: Like, keys: Key) -> Array:
        """Mean of many decoded payloads (stacked on a leading axis), one dense array at a time."""

        def add(worker: Array | int, total: Array) -> Array:
            payload = jax.tree.map(lambda a: a[worker], payloads)
            return total + self.decode(payload, like, keys[worker])

        first = add(0, jnp.zeros(like.shape, like.dtype))
        return lax.fori_loop(1, keys.shape[0], add, first) / keys.shape[0]

    def remainder(self, x: Array, payload: Payload, key: Key) -> Array:
        """What encoding lost, x - decode(payload): sparse ones take it from x in place."""
        return x - self.decode(payload, like_of(x), key)

    def delta(self, like: Like) -> float | None:
        """The contraction: E|C(x) - x|^2 <= (1 - delta) |x|^2. None if nothing is stated."""
        del like
        return None

    def omega(self, like: Like) -> float | None:
        """The relative variance: E C(x) = x, E|C(x) - x|^2 <= omega |x|^2. None if biased."""
        del like
        return None

    def scaled(self, payload: Payload, factor: Array | float) -> Payload:
        """The payload that decodes to `factor` times as much."""
        if self.sparse:
            return payload._replace(values=payload.values * factor)
        raise NotImplementedError(f'{self!r} states omega, so it must define `scaled`.')

    def fitted(self, x: Array, payload: Payload, key: Key) -> Payload:
        """The payload of x, scaled to decode as near to x as a factor can bring it."""
        decoded = self.decode(payload, like_of(x), key)
        return self.scaled(payload, least_squares_scale(x, decoded))

    def contractive(self) -> Compressor:
        """The form that a memory can work with: this one if it states delta, else `Contracted`."""
        if self.delta(LARGE_LEAF) is not None:
            return self
        if self.omega(LARGE_LEAF) is not None:
            return Contracted(self)
        raise TypeError(
            f'{self!r} states neither delta nor omega, so a memory fed by it may grow without '
            'bound. Use it under gradzip.compress, or give it a `delta` method.'
        )

    def __rshift__(self, second: Compressor) -> Composed:
        if not isinstance(second, Compressor):
            return NotImplemented
        return Composed(self, second)


@dataclasses.dataclass(frozen=True)
class Composed(Compressor):
    """`first >> second`: the first keeps entries, the second encodes their values.

    What the first drops is orthogonal to what it keeps, so contractions multiply:
    |x - B(Ax)|^2 = |x|^2 - |Ax|^2 + |Ax - B(Ax)|^2 <= (1 - delta_A delta_B) |x|^2. Two unbiased
    ones compose to 1 + omega = (1 + omega_A)(1 + omega_B) (tower property; Khirirat et al., arXiv
    1806.06573, treats single quantizers). A contractive first and an unbiased second with omega < 1
    leave delta_A (1 - omega_B).

    Payload: the first's, with `values` replaced by the second's payload.
    """

    first: Compressor
    second: Compressor

    def __post_init__(self) -> None:
        if not self.first.sparse:
            raise TypeError(
                f'{self.first!r} >> {self.second!r}: the payload of {type(self.first).__name__} '
                'has no `values` for a second compressor to encode. Start with one that keeps '
                'entries, such as TopK or RandK.'
            )

    def __repr__(self) -> str:
        return f'{self.first!r} >> {self.second!r}'

    @property
    def linear(self) -> bool:
        return self.first.linear and self.second.linear

    @property
    def random(self) -> bool:
        return self.first.random or self.second.random

    @property
    def sparse(self) -> bool:
        return self.second.sparse

    @property
    def in_place(self) -> bool:
        return self.first.in_place

    def __rshift__(self, second: Compressor) -> Composed:
        """(A >> B) >> C is A >> (B >> C): the last one always encodes the innermost values."""
        return Composed(self.first, self.second >> second)

    def _values_like(self, like: Like) -> Like:
        return jax.eval_shape(lambda x: self.first.encode(x, jax.random.key(0)).values, like)

    def encode(self, x: Array, key: Key) -> Payload:
        payload = self.first.encode(x, jax.random.fold_in(key, 0))
        values = self.second.encode(payload.values, jax.random.fold_in(key, 1))
        return payload._replace(values=values)

    def decode(self, payload: Payload, like: Like, key: Key) -> Array:
        second_key = jax.random.fold_in(key, 1)
        values = self.second.decode(payload.values, self._values_like(like), second_key)
        first_key = jax.random.fold_in(key, 0)
        return self.first.decode(payload._replace(values=values), like, first_key)

    def decode_mean(self, payloads: Payload, like: Like, keys: Key) -> Array:
        values_like = self._values_like(like)
        fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
        decode = jax.vmap(lambda values, key: self.second.decode(values, values_like, key))
        values = decode(payloads.values, fold(keys, 1))
        return self.first.decode_mean(payloads._replace(values=values), like, fold(keys, 0))

    def remainder(self, x: Array, payload: Payload, key: Key) -> Array:
        second_key = jax.random.fold_in(key, 1)
        values = self.second.decode(payload.values, self._values_like(like_of(x)), second_key)
        first_key = jax.random.fold_in(key, 0)
        return self.first.remainder(x, payload._replace(values=values), first_key)

    def delta(self, like: Like) -> float | None:
        values_like = self._values_like(like)
        first, second = self.first.delta(like), self.second.delta(values_like)
        omega = self.second.omega(values_like)
        if second is None and omega is not None and omega < 1:
            second = 1 - omega
        return None if first is None or second is None else first * second

    def omega(self, like: Like) -> float | None:
        first, second = self.first.omega(like), self.second.omega(self._values_like(like))
        return None if first is None or second is None else (1 + first) * (1 + second) - 1

    def scaled(self, payload: Payload, factor: Array | float) -> Payload:
        return payload._replace(values=self.second.scaled(payload.values, factor))

    def contractive(self) -> Compressor:
        return Composed(self.first.contractive(), self.second.contractive())


@dataclasses.dataclass(frozen=True)
class Contracted(Compressor):
    """An unbiased compressor as a memory needs it: scaled until it contracts.

    A linear one becomes Q / (1 + omega), since E|Q/(1 + omega) - x|^2 <= (1 - 1/(1 + omega)) |x|^2.
    Any other gets the least-squares scale <x, Qx> / |Qx|^2 of each draw, folded into the payload's
    own scale. That leaves |x|^2 - <x, Qx>^2 / |Qx|^2, where by Cauchy-Schwarz
    E<x, Qx>^2 / |Qx|^2 >= (E<x, Qx>)^2 / E|Qx|^2 >= |x|^2 / (1 + omega). The worst case of omega
    does not enter, only that of the data.

    Payload: the inner compressor's. Guarantee: contractive with delta = 1 / (1 + omega).
    """

    inner: Compressor

    @property
    def linear(self) -> bool:
        return self.inner.linear

    @property
    def random(self) -> bool:
        return self.inner.random

    @property
    def sparse(self) -> bool:
        return self.inner.sparse

    @property
    def in_place(self) -> bool:
        return self.inner.in_place

    def encode(self, x: Array, key: Key) -> Payload:
        payload = self.inner.encode(x, key)
        if self.linear:
            return self.inner.scaled(payload, self.delta(like_of(x)))
        return self.inner.fitted(x, payload, key)

    def decode(self, payload: Payload, like: Like, key: Key) -> Array:
        return self.inner.decode(payload, like, key)

    def decode_mean(self, payloads: Payload, like: Like, keys: Key) -> Array:
        return self.inner.decode_mean(payloads, like, keys)

    def remainder(self, x: Array, payload: Payload, key: Key) -> Array:
        return self.inner.remainder(x, payload, key)

    def delta(self, like: Like) -> float:
        omega = self.inner.omega(like)
        assert omega is not None
        return 1 / (1 + omega)

    def scaled(self, payload: Payload, factor: Array | float) -> Payload:
        return self.inner.scaled(payload, factor)


class Reduced(NamedTuple):
    """What a reducer returns for one array."""

    mean: Array  # estimate of the mean over workers, the same on every worker
    sent: Array  # what this worker contributed; x - sent is what was lost
    state: State  # the reducer's next state, the same on every worker
    lost: Array | None = None  # x - sent, from a reducer that has it for less than a subtraction

    def lost_of(self, x: Array) -> Array:
        """What was not sent of x."""
        return x - self.sent if self.lost is None else self.lost


@dataclasses.dataclass(frozen=True)
class Reducer(abc.ABC):
    """Averages arrays over the workers of an axis, approximately.

    The leaves whose reducers compare equal come together, so that one collective can carry
    them all. Law: pmean(sent) == mean. `in_place` says that `lost` is x with some entries changed.
    """

    random: ClassVar[bool] = False
    in_place: ClassVar[bool] = False

    def init(self, like: Like) -> State:
        """The reducer's first state for one array: a function of its shape and dtype only."""
        del like
        return ()

    @abc.abstractmethod
    def reduce(
        self, xs: list[Array], states: list[State], keys: list[Key], axis_name: AxisName | None
    ) -> list[Reduced]:
        """One `Reduced` for each array. `axis_name=None` means one worker and no collective."""

    def contractive(self) -> Reducer:
        """The form that a memory can work with."""
        return self


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PerWorker:
    """Part of a state that differs between workers.

    Every leaf of `rows` keeps a leading axis of workers: length one where `update` runs, all of
    them outside the mapper. `axes` names the mapped axes over which the rows differ, so that
    `gradzip.state_specs` can tell every mapper what to do with them.

    Example:
      >>> import gradzip as gz, jax.numpy as jnp
      >>> gz.PerWorker(jnp.zeros((1, 3)), axes=('data',)).axes
      ('data',)
    """

    rows: PyTree
    axes: tuple[str, ...] = dataclasses.field(metadata={'static': True})


Scheme = Compressor | Reducer | Callable[[Like], Compressor | Reducer]


def check_compressor(owner: str, name: str, value: Any) -> None:
    """Refuses what is no compressor."""
    if not isinstance(value, Compressor):
        raise TypeError(f'{owner}({name}=...) must be a Compressor; got {value!r}.')


def like_of(x: Any) -> Like:
    """Shape and dtype of an array, without the array."""
    return Like(x.shape, x.dtype)


def memory_like(x: Any) -> Like:
    """Shape and dtype in which a leaf is remembered: at least float32."""
    return Like(x.shape, widest(jnp.float32, x.dtype))


def widest(*dtypes: Any) -> Any:
    """The dtype with the most bits; works where promotion is strict."""
    return max(dtypes, key=lambda dtype: jnp.dtype(dtype).itemsize)


def least_squares_scale(x: Array, y: Array) -> Array:
    """<x, y> / <y, y>, the factor that brings y nearest to x; 0 where y is zero.

    Both are divided by max|y| first: squares of float32 gradients overflow above 1e19.
    """
    largest = jnp.max(jnp.abs(y), initial=0)
    unit = jnp.where(largest == 0, 1, largest)
    x, y = x / unit, y / unit
    energy = jnp.sum(y * y)
    return jnp.sum(x * y) / jnp.where(energy == 0, 1, energy)
