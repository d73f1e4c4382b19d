"""A reducer that sends every payload to every worker."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from gradzip import _axes as axes, _checks as checks, _collectives as collectives
from gradzip._base import (
    Array,
    AxisName,
    Compressor,
    Key,
    Like,
    Payload,
    Reduced,
    Reducer,
    State,
    check_compressor,
    like_of,
    with_memory,
)
from gradzip._buffer import LANES, from_buffer, to_buffer, travels_alone
from gradzip._kernels.alike import AT_ONCE_UP_TO, each, one_by_one
from gradzip._kernels.in_turn import add_in_turn
from gradzip._kernels.parts import each_key
from gradzip._kernels.selection import SORT_UP_TO

MeanOver = Literal['workers', 'senders']


@dataclasses.dataclass(frozen=True)
class Gather(Reducer):
    """mean = (1/W) sum_w decode(encode(x_w)), where every worker draws independently.

    All payloads of all leaves travel in one buffer of (rows, 128) words, in one all-gather. Arrays
    of 128 KiB and more have an all-gather of their own on TPU.

    With `mean_over='senders'`, the sum of every entry is divided by the number of workers whose
    payload decodes to another value than zero there, in place of W. An entry that few workers sent
    then moves as far as one that all of them sent. What `pmean(sent)` is to the mean is lost by
    this: the updates no longer add up to the mean gradients.

    Args:
      compressor: any compressor.
      mean_over: 'workers', as in the papers and in every theorem, or 'senders', as in the published
        code of DeMo and SparseLoCo; this needs a compressor that keeps entries, such as `TopK`. It
        decodes every payload to a dense array, which takes one pass over memory for each worker.

    Bytes: a worker contributes one buffer and receives W - 1. This is cheaper than an all-reduce of
      n float32 entries, which sends about 8 n bytes each way, as long as the payload is smaller
      than 8 n / (W - 1) bytes.

    Raises:
      TypeError: compressor is not a Compressor, or the mean is one over senders and it keeps no
        entries.
      ValueError: mean_over is neither of the two.

    Example:
      >>> import gradzip as gz
      >>> gz.Gather(gz.Bernoulli(0.1))  # independent masks, as the paper's theorems need
      Gather(compressor=Bernoulli(fraction=0.1), mean_over='workers')
    """

    compressor: Compressor
    mean_over: MeanOver = dataclasses.field(default='workers', kw_only=True)

    def __post_init__(self) -> None:
        check_compressor('Gather', 'compressor', self.compressor)
        checks.one_of('Gather', 'mean_over', self.mean_over, get_args(MeanOver))
        if self.mean_over == 'senders' and not self.overwrites:
            raise TypeError(
                f"Gather({self.compressor!r}, mean_over='senders') counts the workers that sent an "
                'entry, so it needs a compressor that keeps entries, such as TopK or TopK >> QSGD.'
            )

    @property
    def random(self) -> bool:
        return self.compressor.random

    @property
    def overwrites(self) -> bool:
        return self.compressor.selects or self.compressor.sparse

    def contractive(self, like: Like) -> Gather:
        return dataclasses.replace(self, compressor=self.compressor.contractive(like))

    def adds(self, like: Like) -> bool:
        return self.compressor.adds(like)

    def reduce(
        self,
        xs: list[Array],
        states: list[State],
        keys: list[Key],
        axis_name: AxisName | None,
        memories: list[Array | None] | None = None,
        misplaced: Array | None = None,
    ) -> list[Reduced]:
        me, likes = axes.worker_index(axis_name), [like_of(x) for x in xs]
        mine = self._each(_fold_in(jnp.stack(keys), me))
        payloads, sents, losts = self.messages(xs, mine, memories)
        payloads = axes.nan_if(misplaced, payloads)
        means = sents
        if axis_name is not None:
            workers = jnp.arange(axes.worker_count(axis_name))
            theirs = jax.vmap(_fold_in, (None, 0), 1)(jnp.stack(keys), workers)
            means = self.means_of(self._gathered(payloads, axis_name), likes, self._each(theirs))
        return [Reduced(*columns) for columns in zip(means, sents, losts, states, strict=True)]

    def _gathered(self, payloads: list[Payload], axis_name: AxisName) -> list[Payload]:
        """Returns the payloads of all workers, stacked; in one buffer where they are sent.

        Large arrays on TPU stay outside of it: to copy them there and out of what was gathered
        would take more passes over memory than all else that is done with them.
        """
        if axes.simulated_axes(axis_name) == axes.names_of(axis_name):
            return jax.tree.map(lambda a: collectives.gather(a, axis_name), payloads)
        arrays, treedef = jax.tree.flatten(payloads)
        joined = [not travels_alone(a) for a in arrays]
        small = [a for a, one in zip(arrays, joined, strict=True) if one]
        out = iter(_gathered_together(small, axis_name) if small else ())
        return treedef.unflatten(
            next(out) if one else _gathered_alone(a, axis_name)
            for a, one in zip(arrays, joined, strict=True)
        )

    def _each(self, keys: Key) -> list[Key]:
        """Returns the key of every array."""
        return each_key(keys) if self.random else list(keys)

    @property
    def _together(self) -> tuple[float, float]:
        """Entries of the largest array that is handled at once, and in a loop, with its like."""
        if self.compressor.sparse or self.compressor.selects:
            return SORT_UP_TO, math.inf
        return AT_ONCE_UP_TO, 0

    def messages(
        self, xs: list[Array], keys: list[Key], memories: list[Array | None] | None = None
    ) -> tuple[list[Payload], list[Array], list[Array]]:
        """Returns what this worker sends, what that stands for, and what is lost."""

        def message(
            like: Like, x: Array, key: Key, memory: Array | None
        ) -> tuple[Payload, Array, Array]:
            payload, lost = self.compressor.message(x, key, memory)
            return payload, self.compressor.decode(payload, like, key), lost

        likes = [like_of(x) for x in xs]
        pairs = list(zip(xs, memories or [None] * len(xs), strict=True))
        alone = one_by_one(likes, *self._together)
        # One array, the sum, is stacked with others of its shape in place of two.
        pairs = [p if a else (with_memory(*p), None) for p, a in zip(pairs, alone, strict=True)]
        messages = each(
            message, likes, *self._together, [x for x, _ in pairs], keys, [m for _, m in pairs]
        )
        payloads, sents, losts = ([part[j] for part in messages] for j in range(3))
        return payloads, sents, losts

    def payloads(self, xs: list[Array], keys: list[Key]) -> list[Payload]:
        """Returns what this worker sends: one payload per array, each encoded with its own key."""

        def payload(like: Like, x: Array, key: Key) -> Payload:
            del like
            return self.compressor.encode(x, key)

        return each(payload, [like_of(x) for x in xs], *self._together, xs, keys)

    def means(self, buffers: Array, likes: list[Like], keys: list[Key]) -> list[Array]:
        """Returns the mean of what all workers sent.

        Args:
          buffers: the payloads of all workers, u32[workers, rows, 128].
          likes: shapes and dtypes of the arrays.
          keys: the keys of all workers for each array, key[workers].
        """

        shapes = jax.eval_shape(self.payloads, likes, [key[0] for key in keys])
        return self.means_of(from_buffer(buffers, shapes), likes, keys)

    def means_of(self, payloads: list[Payload], likes: list[Like], keys: list[Key]) -> list[Array]:
        """Returns the same from the payloads of all workers for each array."""

        def mean(like: Like, payloads: Payload, keys: Key) -> Array:
            if self.mean_over == 'senders':
                return _mean_over_senders(self.compressor, payloads, like, keys)
            return self.compressor.decode_mean(payloads, like, keys)

        return each(mean, likes, *self._together, payloads, keys)


def _mean_over_senders(compressor: Compressor, payloads: Payload, like: Like, keys: Key) -> Array:
    """The sum of all workers' entries, each over the number of workers that sent it."""

    def add(worker: Array | int, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        total, senders = sums
        payload = jax.tree.map(lambda a: a[worker], payloads)
        decoded = compressor.decode(payload, like, keys[worker])
        return total + decoded, senders + (decoded != 0).astype(jnp.int32)

    nothing = jnp.zeros(like.shape, like.dtype), jnp.zeros(like.shape, jnp.int32)
    first, workers = add(0, nothing), keys.shape[0]
    total, senders = add_in_turn(lambda i, sums: add(i + 1, sums), first, workers - 1)
    return total / jnp.maximum(senders, 1).astype(total.dtype)


def _gathered_together(arrays: list[Array], axis_name: AxisName) -> list[Array]:
    buffers = collectives.gather(to_buffer(arrays), axis_name)
    return from_buffer(buffers, [like_of(a) for a in arrays])


def _gathered_alone(x: Array, axis_name: AxisName) -> Array:
    """The array of all workers; a flat one travels as rows of lanes."""
    gathered = collectives.gather(x.reshape(-1, LANES) if x.ndim == 1 else x, axis_name)
    return gathered.reshape(-1, *x.shape)


def _fold_in(keys: Key, worker: Array) -> Key:
    """The keys of one worker, in one call: threefry costs time to compile."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, worker)
