"""A reducer that sums payloads in an all-reduce."""

from __future__ import annotations

import dataclasses

from gradzip import _collectives as collectives
from gradzip._base import (
    Array,
    AxisName,
    Compressor,
    Key,
    Like,
    Reduced,
    Reducer,
    State,
    check_compressor,
    like_of,
)


@dataclasses.dataclass(frozen=True)
class Sum(Reducer):
    """mean = decode((1/W) sum_w encode(x_w)) with a linear compressor and one key for all workers.

    `Sum(Identity())` is the exact mean. All payloads of all leaves travel in one all-reduce.

    Args:
      compressor: a linear compressor: Identity, RandK, Bernoulli.

    Bytes: an all-reduce of the payload, for any number of workers.

    Raises:
      TypeError: compressor is not a Compressor, or not linear.

    Example:
      >>> import gradzip as gz
      >>> gz.Sum(gz.RandK(0.01))  # what a bare gz.RandK(0.01) means as a scheme
      Sum(compressor=RandK(fraction=0.01))
    """

    compressor: Compressor

    def __post_init__(self) -> None:
        check_compressor('Sum', 'compressor', self.compressor)
        if not self.compressor.linear:
            raise TypeError(
                f'Sum({self.compressor!r}): the sum of its payloads does not decode to the sum of '
                f'the arrays. Use Gather({self.compressor!r}), or a linear compressor: Identity, '
                'RandK, Bernoulli.'
            )

    @property
    def random(self) -> bool:
        return self.compressor.random

    @property
    def overwrites(self) -> bool:
        return self.compressor.sparse

    def contractive(self, like: Like) -> Sum:
        return Sum(self.compressor.contractive(like))

    def reduce(
        self, xs: list[Array], states: list[State], keys: list[Key], axis_name: AxisName | None
    ) -> list[Reduced]:
        encode, decode = self.compressor.encode, self.compressor.decode
        likes = [like_of(x) for x in xs]
        payloads = [encode(x, key) for x, key in zip(xs, keys, strict=True)]
        sents = [decode(*args) for args in zip(payloads, likes, keys, strict=True)]
        if axis_name is None:
            means = sents
        else:
            totals = collectives.mean(payloads, axis_name)
            means = [decode(*args) for args in zip(totals, likes, keys, strict=True)]
        remainder = self.compressor.remainder
        losts = [remainder(*args) for args in zip(xs, payloads, keys, strict=True)]
        return [Reduced(*columns) for columns in zip(means, sents, losts, states, strict=True)]
