"""Every worker receives every payload."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gradzip import axes
from gradzip.base import (
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
)
from gradzip.packing import from_buffer, to_buffer


@dataclasses.dataclass(frozen=True)
class Gather(Reducer):
    """mean = (1/W) sum_w decode(encode(x_w)), every worker with randomness of its own.

    All payloads of all leaves travel in one buffer of (rows, 128) words, in one all-gather.

    Args:
      compressor: any compressor.

    Bytes: a worker contributes one buffer and receives W - 1: it pays against an all-reduce of n
      float32 entries (about 8 n bytes each way) as long as the payload is below 8 n / (W - 1)
      bytes.

    Raises:
      TypeError: compressor is not a Compressor.

    Example:
      >>> import gradzip as gz
      >>> gz.Gather(gz.Bernoulli(0.1))  # independent masks, as the paper's theorems need
      Gather(compressor=Bernoulli(probability=0.1))
    """

    compressor: Compressor

    def __post_init__(self) -> None:
        check_compressor('Gather', 'compressor', self.compressor)

    @property
    def random(self) -> bool:
        return self.compressor.random

    def contractive(self) -> Gather:
        return Gather(self.compressor.contractive())

    def reduce(
        self, xs: list[Array], states: list[State], keys: list[Key], axis_name: AxisName | None
    ) -> list[Reduced]:
        me, likes = axes.worker_index(axis_name), [like_of(x) for x in xs]
        mine = [jax.random.fold_in(key, me) for key in keys]
        payloads = self.payloads(xs, mine)
        sents = [self.compressor.decode(*args) for args in zip(payloads, likes, mine, strict=True)]
        losts = [self.compressor.remainder(*args) for args in zip(xs, payloads, mine, strict=True)]
        means = sents
        if axis_name is not None:
            workers = jnp.arange(axes.worker_count(axis_name))
            everyones = axes.gather(to_buffer(payloads), axis_name)
            fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
            means = self.means(everyones, likes, [fold(key, workers) for key in keys])
        return [Reduced(*columns) for columns in zip(means, sents, states, losts, strict=True)]

    def payloads(self, xs: list[Array], keys: list[Key]) -> list[Payload]:
        """What this worker sends, one payload an array, each with this worker's own key."""
        return [self.compressor.encode(x, key) for x, key in zip(xs, keys, strict=True)]

    def means(self, buffers: Array, likes: list[Like], keys: list[Key]) -> list[Array]:
        """The mean of what everyone sent: buffers u32[workers, rows, 128], keys [workers] each."""
        shapes = jax.eval_shape(self.payloads, likes, [key[0] for key in keys])
        return [
            self.compressor.decode_mean(*args)
            for args in zip(from_buffer(buffers, shapes), likes, keys, strict=True)
        ]
