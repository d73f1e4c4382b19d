"""The protocols `Compressor` and `Reducer`, what a reducer returns, and the marker `PerWorker`.

A gradient's way through the library:

    updates --(feedback: add the memory)--> target --(leaves: group by reducer)--> Reducer.reduce
      Reducer:  Compressor.encode -> payload words -> collective -> Compressor.decode_mean
    Reduced.mean leaves as the update;  Reduced.lost stays behind as the memory.

A `Compressor` turns one array into a payload and back, and knows nothing of workers. A `Reducer`
averages arrays over the workers of an axis and is the only class that communicates. A
transformation in `_feedback` decides what a worker remembers, and uses only `mean`, `sent` and
`lost`. Therefore every compressor can be used with every reducer that accepts it, every reducer
with every memory, and all of them with every optimizer. Each family obeys one law
(tests/test_law_*.py):

    compressor   decode(encode(x)) has x's shape and dtype, and the declared omega or delta holds
    reducer      pmean(sent) == mean, and sent + lost == x
    feedback     sum of the updates + pmean(error) == sum of the mean gradients

A compressor states the constants that the theory needs: `omega` if it is unbiased,
E|Q(x) - x|^2 <= omega |x|^2; `delta` if it is contractive, E|C(x) - x|^2 <= (1 - delta) |x|^2.
A memory needs a contractive compressor. `Compressor.contractive` returns one for a compressor that
is only unbiased: Q / (1 + omega), or a least-squares scale, which is never worse.

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
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from gradzip._compose import Composed

Array = jax.Array
Key = jax.Array  # a typed key, such as jax.random.key(0)
PyTree = Any
Payload = Any
State = Any
AxisName = str | tuple[str, ...]
Like = jax.ShapeDtypeStruct
KeyLike = int | Key


@dataclasses.dataclass(frozen=True)
class Compressor(abc.ABC):
    """Turns one array into a payload and back. It is pure, and every shape is static.

    A subclass is a frozen dataclass of hyperparameters that defines `encode`, `decode` and, if it
    has one, its constant: `omega` together with `scaled`, or `delta`. Four class variables describe
    it:

    - `linear`: for one key, the mean of payloads decodes to the mean of the arrays.
    - `random`: `encode` and `decode` use their key.
    - `sparse`: the payload has a field `values` with entries of the array, which a second
      compressor may encode (`A >> B`).
    - `selects`: `encode` selects entries by their values, and `remainder` overwrites just these.
    """

    linear: ClassVar[bool] = False
    random: ClassVar[bool] = False
    sparse: ClassVar[bool] = False
    selects: ClassVar[bool] = False
    # Workers whose payloads an accelerator decodes in one pass: one where an entry depends on many
    # entries of the payload, because each decoded array is then stored.
    _decoded_at_once: ClassVar[int] = 8

    @abc.abstractmethod
    def encode(self, x: Array, key: Key) -> Payload:
        """Returns the payload of x: a NamedTuple of arrays whose shapes depend on x's alone."""

    @abc.abstractmethod
    def decode(self, payload: Payload, like: Like, key: Key) -> Array:
        """Returns the array that a payload stands for, in like's shape and dtype.

        `key` must be the one that `encode` had.
        """

    def decode_mean(self, payloads: Payload, like: Like, keys: Key) -> Array:
        """Returns the mean of many decoded payloads, which are stacked along a leading axis.

        Payloads are decoded one after the other, or a few small ones at once, so that little more
        than one dense array exists at a time.
        """
        from gradzip._kernels.in_turn import sum_in_turn  # it needs types of this module

        def decode(payload: Payload, key: Key) -> Array:
            return self.decode(payload, like, key)

        total = sum_in_turn(decode, (payloads, keys), like, self._decoded_at_once)
        return total / keys.shape[0]

    def remainder(self, x: Array, payload: Payload, key: Key) -> Array:
        """Returns what encoding lost, x - decode(payload)."""
        return x - self.decode(payload, like_of(x), key)

    def message(self, x: Array, key: Key, memory: Array | None = None) -> tuple[Payload, Array]:
        """Returns what `encode` and `remainder` return, for x or, with a memory, for their sum.

        A subclass may define it to compute both in one pass over memory. A memory is only given
        where `adds` says that the sum is computed in the same pass.
        """
        x = with_memory(x, memory)
        payload = self.encode(x, key)
        return payload, self.remainder(x, payload, key)

    def delta(self, like: Like) -> float | None:
        """The contraction: E|C(x) - x|^2 <= (1 - delta) |x|^2. None if the class states none."""
        del like
        return None

    def omega(self, like: Like) -> float | None:
        """The relative variance: E C(x) = x and E|C(x) - x|^2 <= omega |x|^2. None if biased."""
        del like
        return None

    def scaled(self, payload: Payload, factor: Array | float) -> Payload:
        """Returns the payload that decodes to `factor` times as much."""
        if self.sparse:
            return payload._replace(values=payload.values * factor)
        raise NotImplementedError(f'{self!r} states omega, so it must define `scaled`.')

    def least_squares_rescaled(self, x: Array, payload: Payload, key: Key) -> Payload:
        """Returns the payload of x with its scale chosen so that it decodes as near to x as it can.

        The default multiplies the whole payload by one factor; a compressor with a scale for each
        block may fit each of them.
        """
        decoded = self.decode(payload, like_of(x), key)
        return self.scaled(payload, least_squares_scale(x, decoded))

    def least_squares_message(
        self, x: Array, key: Key, memory: Array | None = None
    ) -> tuple[Payload, Array]:
        """Returns `message` for the payload of `least_squares_rescaled`."""
        x = with_memory(x, memory)
        payload = self.least_squares_rescaled(x, self.encode(x, key), key)
        return payload, self.remainder(x, payload, key)

    def adds(self, like: Like) -> bool:
        """Returns whether `message` adds the memory of such a leaf in the pass that reads it."""
        del like
        return False

    def contractive(self, like: Like) -> Compressor:
        """Returns the form of this compressor that a memory can work with, for a leaf like this.

        That is the compressor itself if it states delta, and `Contracted` if it states omega.

        Raises:
          TypeError: it states neither.
        """
        if self.delta(like) is not None:
            return self
        if self.omega(like) is not None:
            from gradzip._compose import Contracted  # it is a Compressor itself

            return Contracted(self)
        raise TypeError(
            f'{self!r} states neither delta nor omega for a leaf of shape {like.shape}, so a '
            'memory fed by it may grow without bound. Use it under gradzip.compress, or give it a '
            '`delta` method.'
        )

    def __rshift__(self, second: Compressor) -> Composed:
        from gradzip._compose import Composed  # it is a Compressor itself

        if not isinstance(second, Compressor):
            return NotImplemented
        return Composed(self, second)


class Reduced(NamedTuple):
    """What a reducer returns for one array."""

    mean: Array  # estimate of the mean over workers, the same on every worker
    sent: Array  # what this worker contributed to the mean
    lost: Array  # x - sent: what this worker wanted to contribute and did not
    state: State  # the reducer's next state, the same on every worker


@dataclasses.dataclass(frozen=True)
class Reducer(abc.ABC):
    """Averages arrays over the workers of an axis, approximately.

    All leaves whose reducers compare equal are passed in one call, so that one collective can carry
    them. The laws are pmean(sent) == mean and sent + lost == x. Two class variables describe a
    reducer:

    - `random`: it uses its keys.
    - `overwrites`: `lost` is x with a few entries overwritten, so it can take x's buffer.
    """

    random: ClassVar[bool] = False
    overwrites: ClassVar[bool] = False

    def init(self, like: Like) -> State:
        """Returns the reducer's first state for one array, from its shape and dtype alone."""
        del like
        return ()

    @abc.abstractmethod
    def reduce(
        self, xs: list[Array], states: list[State], keys: list[Key], axis_name: AxisName | None
    ) -> list[Reduced]:
        """Returns one `Reduced` for each array. None for axis_name means one worker."""

    def adds(self, like: Like) -> bool:
        """Returns whether `reduce` takes `memories`, which it adds to arrays like this.

        Then it has two more arguments: a list with an array or None for each of xs, and
        `misplaced`, a bool[] or None. If that is true, it sends NaN, because the memories are those
        of another worker.
        """
        del like
        return False

    def contractive(self, like: Like) -> Reducer:
        """Returns the form of this reducer that a memory can work with, for a leaf like this."""
        del like
        return self


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PerWorker:
    """Marks the part of a state that differs between workers.

    Every leaf of `rows` has a leading axis of workers. Its length is one where `update` runs, and
    the number of workers outside the mapper. `axes` names the mapped axes over which the rows
    differ; `gradzip.state_specs` turns it into the specification that each mapper expects. `worker`
    numbers the rows, so that a worker that receives a row of another one notices.

    Example:
      >>> import gradzip as gz, jax.numpy as jnp
      >>> gz.PerWorker(jnp.zeros((1, 3)), axes=('data',)).axes
      ('data',)
    """

    rows: PyTree
    axes: tuple[str, ...] = dataclasses.field(metadata={'static': True})
    worker: Array | None = None  # i32[1], the number of the worker; -1 before the first step


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class MadeFor:
    """The transformation that a state belongs to, in words. A state has it as a static field.

    Trees that differ in a static field are different, so that JAX refuses to mix them up, and every
    update compares it with the transformation that receives the state.
    """

    text: str

    def __repr__(self) -> str:
        return self.text


Scheme = Compressor | Reducer | Callable[[Like], Compressor | Reducer]


def check_compressor(owner: str, name: str, value: Any) -> None:
    """Raises TypeError for anything that is not a compressor."""
    if not isinstance(value, Compressor):
        raise TypeError(f'{owner}({name}=...) must be a Compressor; got {value!r}.')


def like_of(x: Any) -> Like:
    """Returns the shape and dtype of an array."""
    return Like(x.shape, x.dtype)


def with_memory(x: Array, memory: Array | None) -> Array:
    """Returns the sum of an array and a memory, if there is one."""
    return x if memory is None else x + memory


def memory_like(x: Any) -> Like:
    """Returns the shape and dtype of a leaf's memory: at least float32."""
    return Like(x.shape, widest(jnp.float32, x.dtype))


def widest(*dtypes: Any) -> Any:
    """Returns the dtype with the most bits. It also works where promotion is strict."""
    return max(dtypes, key=lambda dtype: jnp.dtype(dtype).itemsize)


def least_squares_scale(x: Array, y: Array) -> Array:
    """Returns <x, y> / <y, y>, the factor that brings y nearest to x, and 0 if y is zero.

    Both arrays are first divided by max|y|, because squares of float32 entries overflow above 1e19.
    """
    largest = jnp.max(jnp.abs(y), initial=0)
    unit = jnp.where(largest == 0, 1, largest)
    x, y = x / unit, y / unit
    energy = jnp.sum(y * y)
    return jnp.sum(x * y) / jnp.where(energy == 0, 1, energy)
