"""The base of quantizers, which have a code for every entry and kernels in programs for TPU."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from gradzip._base import Array, Compressor, Key, Like, Payload, like_of, with_memory
from gradzip._blocks import wide
from gradzip._kernels.fused import Flat, fused, one_at_a_time
from gradzip._kernels.platform import choose

MOST_BITS = 512  # of the codes that all workers have for an entry, or they exceed on-chip memory


@dataclasses.dataclass(frozen=True)
class Quantizer(Compressor):
    """Base of compressors with a code of a few bits for every entry.

    A subclass defines `_encode` and `_decode`, which are the plain forms, and `_sweep` and `_mean`,
    which do the same with kernels for TPU. It may refuse leaves for kernels by `_swept`.
    """

    code_bits: ClassVar[int]  # of a code
    tile: ClassVar[int] = 1024  # entries; a kernel reads leaves of a multiple of it as they are

    @abc.abstractmethod
    def _encode(self, x: Array, key: Key) -> Payload:
        """Returns the payload."""

    @abc.abstractmethod
    def _decode(self, payload: Payload, like: Like, key: Key) -> Array:
        """Returns the entries, in the shape and dtype of `like`."""

    @abc.abstractmethod
    def _sweep(self, flat: Flat, key: Key, *, fit: bool, lost: bool) -> tuple[Payload, Any]:
        """Returns the payload of an array or sum, and what is lost if that is wanted.

        With `fit`, the payload is that of `least_squares_rescaled`.
        """

    @abc.abstractmethod
    def _mean(self, payloads: Payload, shape: tuple[int, ...], keys: Key) -> Array:
        """Returns the mean of decoded payloads that are stacked, f32[*shape]."""

    def _swept(self, like: Like) -> bool:
        """Returns whether there are kernels for a leaf like this, whose entries are widened."""
        return fused(like.size, jnp.float64 if like.dtype == jnp.float64 else jnp.float32)

    def encode(self, x: Array, key: Key) -> Payload:
        return self._made(x, key, fit=False, lost=False)[0]

    def message(self, x: Array, key: Key, memory: Array | None = None) -> tuple[Payload, Array]:
        return self._made(x, key, memory, fit=False, lost=True)

    def least_squares_message(
        self, x: Array, key: Key, memory: Array | None = None
    ) -> tuple[Payload, Array]:
        return self._made(x, key, memory, fit=True, lost=True)

    def adds(self, like: Like) -> bool:
        # Other leaves are padded by a copy, which the sum does not need.
        whole = like.size % self.tile == 0
        return whole and like.dtype == jnp.float32 and self._swept(like)

    def _made(
        self, x: Array, key: Key, memory: Array | None = None, *, fit: bool, lost: bool
    ) -> tuple[Payload, Any]:
        how = {'how': self, 'fit': fit, 'lost': lost}
        if not self._swept(like_of(x)):
            return _plain(x, key, memory, **how)
        return choose(x, key, memory, default=_plain, tpu=_on_tpu, **how)

    def decode(self, payload: Payload, like: Like, key: Key) -> Array:
        if not self._swept(like):
            return self._decode(payload, like, key)
        how = {'how': self, 'like': _bare(like)}
        return choose(payload, key, default=_decoded, tpu=_decoded_on_tpu, **how)

    def decode_mean(self, payloads: Payload, like: Like, keys: Key) -> Array:
        if not self._swept(like) or keys.shape[0] * self.code_bits > MOST_BITS:
            return super().decode_mean(payloads, like, keys)
        return choose(
            payloads, keys, default=_averaged, tpu=_averaged_on_tpu, how=self, like=_bare(like)
        )


def _bare(like: Any) -> Like:
    """The shape and dtype alone, which can be compared."""
    return Like(like.shape, like.dtype)


def _plain(
    x: Array, key: Key, memory: Array | None, *, how: Quantizer, fit: bool, lost: bool
) -> tuple[Payload, Any]:
    x = with_memory(x, memory)
    payload = how._encode(x, key)
    if fit:
        payload = how.least_squares_rescaled(x, payload, key)
    return payload, x - how._decode(payload, like_of(x), key) if lost else ()


def _on_tpu(
    x: Array, key: Key, memory: Array | None, *, how: Quantizer, fit: bool, lost: bool
) -> tuple[Payload, Any]:
    same = x.dtype == jnp.float32  # or what was sent is rounded once more, to the dtype of x

    def sweep(key: Key, *parts: Array) -> tuple[Payload, Any]:
        return how._sweep(Flat(*parts), key, fit=fit, lost=lost and same)

    entries = wide(x).reshape(x.shape)  # a matrix stays one, or else XLA copies it
    parts = (entries,) if memory is None else (memory, entries)
    payload, rest = one_at_a_time(sweep, key, *parts)
    if lost and same:
        rest = rest.reshape(x.shape)
    elif lost:
        rest = x - _decoded_on_tpu(payload, key, how=how, like=like_of(x))
    return payload, rest


def _decoded(payload: Payload, key: Key, *, how: Quantizer, like: Like) -> Array:
    return how._decode(payload, like, key)


def _decoded_on_tpu(payload: Payload, key: Key, *, how: Quantizer, like: Like) -> Array:
    payloads, keys = jax.tree.map(lambda a: a[None], (payload, key))
    return _averaged_on_tpu(payloads, keys, how=how, like=like)


def _averaged(payloads: Payload, keys: Key, *, how: Quantizer, like: Like) -> Array:
    return Compressor.decode_mean(how, payloads, like, keys)


def _averaged_on_tpu(payloads: Payload, keys: Key, *, how: Quantizer, like: Like) -> Array:
    def mean(payloads: Payload, keys: Key) -> Array:
        return how._mean(payloads, like.shape, keys)

    return one_at_a_time(mean, payloads, keys).astype(like.dtype).reshape(like.shape)
