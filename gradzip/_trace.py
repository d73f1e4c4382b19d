"""Delays read from an array: measured ones, or those of a simulation."""

from __future__ import annotations

import copy
import dataclasses
import zlib
from typing import Any, Self

import jax.numpy as jnp
import numpy as np

from gradzip._base import Array, Key, PyTree
from gradzip._delay_models import Delay, check_enough


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Trace(Delay):
    """Delays read from an array: a row for each step, a column for each worker.

    A transformation keeps the array in its state, so that it is no constant of the compiled
    program. After the last row, the first one follows again. Two traces are equal if their numbers
    are. The representation of a trace, by which states know what they were made for, holds a
    checksum.

    Args:
      delays: i32[steps, workers], or integers that fit, each at least 0. With fewer workers, the
        last columns are not used.

    Raises:
      ValueError: an array of another number of axes, an empty one, or a negative number; from a
        transformation, there are more workers than columns.
      TypeError: an array of another kind than integers.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> tx = gz.delay(gz.Trace([[0], [1], [2], [0]]))
      >>> state = tx.init(jnp.zeros([]))
      >>> for step in range(1, 5):
      ...   late, state = tx.update(jnp.float32(step), state)
      ...   print(late)
      1.0
      1.0
      1.0
      4.0

    Reference: delays measured on computers, as in Wu, Magnusson, Feyzmahdavian, Johansson, arXiv
      2202.08550.
    """

    delays: Any
    bound: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        delays = np.asarray(self.delays)
        if delays.dtype.kind not in 'iu':
            raise TypeError(
                'Trace(delays=...) must be an array of integers; got '
                f'{self.delays!r} of dtype {delays.dtype}.'
            )
        if delays.ndim != 2 or not delays.size:
            raise ValueError(
                'Trace(delays=...) must have a row for each step and a column for each worker; got '
                f'shape {delays.shape}.'
            )
        if delays.min() < 0 or delays.max() >= 2**31:
            raise ValueError(
                'Trace(delays=...) must hold steps from 0 to 2^31 - 1; got some from '
                f'{delays.min()} to {delays.max()}.'
            )
        object.__setattr__(self, 'delays', delays.astype(np.int32))
        object.__setattr__(self, 'bound', int(delays.max()))

    def steps(self, key: Key, step: Array, worker: Array) -> Array:
        del key
        delays = jnp.asarray(self.delays)
        return delays[step % delays.shape[0], worker]

    def arrays(self) -> PyTree:
        return jnp.asarray(self.delays)

    def bind(self, arrays: PyTree) -> Self:
        bound = copy.copy(self)
        object.__setattr__(bound, 'delays', arrays)
        return bound

    def check_workers(self, count: int) -> None:
        check_enough(repr(self), self.delays.shape[1], count)

    def __repr__(self) -> str:
        if not isinstance(self.delays, np.ndarray):
            return f'Trace({self.delays!r})'
        shape, checksum = list(self.delays.shape), zlib.crc32(self.delays.tobytes())
        return f'Trace(i32{shape}, bound={self.bound}, checksum={checksum:08x})'

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and np.array_equal(self.delays, other.delays)

    def __hash__(self) -> int:
        return hash(repr(self))
