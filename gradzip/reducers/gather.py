"""Every worker receives every payload."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gradzip import axes
from gradzip.base import Array, AxisName, Compressor, Key, Like, Reduced, Reducer, State, like_of
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
        check_compressor('Gather', self.compressor)

    @property
    def random(self) -> bool:
        return self.compressor.random

    def contractive(self) -> Gather:
        return Gather(self.compressor.contractive())

    def reduce(
        self, xs: list[Array], states: list[State], keys: list[Key], axis_name: AxisName | None
    ) -> list[Reduced]:
        encode, decode = self.compressor.encode, self.compressor.decode
        me, likes = axes.worker_index(axis_name), [like_of(x) for x in xs]
        mine = [jax.random.fold_in(key, me) for key in keys]
        payloads = [encode(x, key) for x, key in zip(xs, mine, strict=True)]
        sents = [decode(*args) for args in zip(payloads, likes, mine, strict=True)]
        means = sents if axis_name is None else self._means(payloads, likes, keys, axis_name)
        return [Reduced(*columns) for columns in zip(means, sents, states, strict=True)]

    def _means(
        self, payloads: list, likes: list[Like], keys: list[Key], axis_name: AxisName
    ) -> list[Array]:
        everyones = from_buffer(
            axes.gather(to_buffer(payloads), axis_name), jax.tree.map(like_of, payloads)
        )
        fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        workers = jnp.arange(axes.worker_count(axis_name))
        return [
            self.compressor.decode_mean(payload, like, fold(key, workers))
            for payload, like, key in zip(everyones, likes, keys, strict=True)
        ]


def check_compressor(owner: str, compressor: Compressor) -> None:
    """Refuses what is no compressor."""
    if not isinstance(compressor, Compressor):
        raise TypeError(f'{owner}(compressor=...) must be a Compressor; got {compressor!r}.')
