"""Compressors made of other compressors: `first >> second`, and the contractive form of one.

`Wrapper` is the base of every compressor that prepares an array and lets another one compress it.
"""

from __future__ import annotations

import abc
import dataclasses

import jax

from gradzip._base import Array, Compressor, Key, Like, Payload, check_compressor, like_of
from gradzip._kernels.fused import fused
from gradzip._kernels.platform import choose


@dataclasses.dataclass(frozen=True)
class Wrapper(Compressor):
    """Base of the compressors that hand an array to another one, `compressor`, in another form.

    A subclass defines `inner_like`, `encode` and `decode`. The payload and the constants are those
    of the wrapped compressor, which is right if the change of form keeps distances.
    """

    compressor: Compressor

    def __post_init__(self) -> None:
        check_compressor(type(self).__name__, 'compressor', self.compressor)

    @abc.abstractmethod
    def inner_like(self, like: Like) -> Like:
        """Returns the shape and dtype of the array that the wrapped compressor sees."""

    @property
    def linear(self) -> bool:
        return self.compressor.linear

    @property
    def random(self) -> bool:
        return self.compressor.random

    def delta(self, like: Like) -> float | None:
        return self.compressor.delta(self.inner_like(like))

    def omega(self, like: Like) -> float | None:
        return self.compressor.omega(self.inner_like(like))

    def scaled(self, payload: Payload, factor: Array | float) -> Payload:
        return self.compressor.scaled(payload, factor)

    def contractive(self, like: Like) -> Compressor:
        inner = self.compressor.contractive(self.inner_like(like))
        return dataclasses.replace(self, compressor=inner)


@dataclasses.dataclass(frozen=True)
class Composed(Compressor):
    """`first >> second`: the first compressor keeps entries, the second encodes their values.

    The entries that the first drops are orthogonal to those that it keeps, so contractions
    multiply: |x - B(Ax)|^2 = |x|^2 - |Ax|^2 + |Ax - B(Ax)|^2 <= (1 - delta_A delta_B) |x|^2. Two
    unbiased compressors compose to 1 + omega = (1 + omega_A)(1 + omega_B), by the tower property.
    A contractive first and an unbiased second with omega < 1 give delta_A (1 - omega_B).

    Payload: that of the first, with `values` replaced by the payload of the second.

    Raises:
      TypeError: the payload of the first has no `values`.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> scheme = gz.TopK(0.5, indices='plain') >> gz.ScaledSign()
      >>> scheme.encode(jnp.array([1.0, -4.0, 2.0, 0.0]), jax.random.key(0)).values
      Signs(bits=Array([1], dtype=uint32), scale=Array(3., dtype=float32))
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
    def selects(self) -> bool:
        return self.first.selects

    def __rshift__(self, second: Compressor) -> Composed:
        """Returns A >> (B >> C) for (A >> B) >> C: the last always encodes the innermost values."""
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

    def message(self, x: Array, key: Key, memory: Array | None = None) -> tuple[Payload, Array]:
        if not (self.first.selects and fused(x.size, x.dtype)):
            return super().message(x, key, memory)
        return choose(x, key, memory, default=_message, tpu=_message_in_turn, how=self)

    def adds(self, like: Like) -> bool:
        return self.first.selects and self.first.adds(like)

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

    def contractive(self, like: Like) -> Composed:
        second = self.second.contractive(self._values_like(like))
        return Composed(self.first.contractive(like), second)


def _message(x: Array, key: Key, memory: Array | None, *, how: Composed) -> tuple[Payload, Array]:
    return Compressor.message(how, x, key, memory)


def _message_in_turn(
    x: Array, key: Key, memory: Array | None, *, how: Composed
) -> tuple[Payload, Array]:
    """The same from the messages of both: what the second loses stands where the first selects.

    The first writes what it loses in the place of x, which would else be read and copied again.
    """
    first_key, second_key = (jax.random.fold_in(key, i) for i in (0, 1))
    payload, lost = how.first.message(x, first_key, memory)
    values, missing = how.second.message(payload.values, second_key)
    lost = how.first.remainder(lost, payload._replace(values=-missing), first_key)
    return payload._replace(values=values), lost


@dataclasses.dataclass(frozen=True)
class Contracted(Wrapper):
    """The form of an unbiased compressor that a memory needs: scaled until it is contractive.

    A linear one becomes Q / (1 + omega), since E|Q/(1 + omega) - x|^2 <= (1 - 1/(1 + omega)) |x|^2.
    Any other one gets the least-squares scale <x, Qx> / |Qx|^2 of each draw, folded into the scale
    of the payload. That leaves |x|^2 - <x, Qx>^2 / |Qx|^2, where by the Cauchy-Schwarz inequality
    E<x, Qx>^2 / |Qx|^2 >= (E<x, Qx>)^2 / E|Qx|^2 >= |x|^2 / (1 + omega). The scale depends on the
    data, so the worst case behind omega costs nothing where it does not occur.

    Payload: that of the wrapped compressor.

    Guarantee: contractive with delta = 1 / (1 + omega).
    """

    @property
    def sparse(self) -> bool:
        return self.compressor.sparse

    @property
    def selects(self) -> bool:
        return self.compressor.selects

    def inner_like(self, like: Like) -> Like:
        return like

    def encode(self, x: Array, key: Key) -> Payload:
        payload = self.compressor.encode(x, key)
        if self.linear:
            factor = self.delta(like_of(x))
            assert factor is not None  # `Compressor.contractive` only wraps what states omega
            return self.compressor.scaled(payload, factor)
        return self.compressor.least_squares_rescaled(x, payload, key)

    def message(self, x: Array, key: Key, memory: Array | None = None) -> tuple[Payload, Array]:
        if self.linear:
            return super().message(x, key, memory)
        return self.compressor.least_squares_message(x, key, memory)

    def adds(self, like: Like) -> bool:
        return not self.linear and self.compressor.adds(like)

    def decode(self, payload: Payload, like: Like, key: Key) -> Array:
        return self.compressor.decode(payload, like, key)

    def decode_mean(self, payloads: Payload, like: Like, keys: Key) -> Array:
        return self.compressor.decode_mean(payloads, like, keys)

    def remainder(self, x: Array, payload: Payload, key: Key) -> Array:
        return self.compressor.remainder(x, payload, key)

    def delta(self, like: Like) -> float | None:
        omega = self.compressor.omega(like)
        return None if omega is None else 1 / (1 + omega)

    def omega(self, like: Like) -> None:
        del like

    def contractive(self, like: Like) -> Contracted:
        del like
        return self
