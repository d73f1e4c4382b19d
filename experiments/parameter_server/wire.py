"""Messages over a socket: a number, then so many bytes; and a gradient as bytes."""

from __future__ import annotations

import socket
import struct
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gradzip as gz

HEAD = struct.Struct('<qq')  # a number, and how many bytes follow


def send(to: socket.socket, number: int, data: bytes = b'') -> None:
    """Sends a message; returns when the kernel has taken all of it."""
    to.sendall(HEAD.pack(number, len(data)))
    to.sendall(data)


def receive(source: socket.socket) -> tuple[int, bytes]:
    """Waits for a message, and returns its number and its bytes.

    Raises:
      ConnectionError: the other side has ended.
    """
    number, size = HEAD.unpack(_exactly(source, HEAD.size))
    return number, bytes(_exactly(source, size))


def _exactly(source: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        got = source.recv_into(view)
        if not got:
            raise ConnectionError('The other side has closed the connection.')
        view = view[got:]
    return data


class Codec:
    """A gradient of so many entries as bytes and back."""

    def __init__(self, compressor: gz.Compressor, size: int) -> None:
        like, key = jax.ShapeDtypeStruct((size,), jnp.float32), jax.random.key(0)
        shapes = jax.eval_shape(compressor.encode, like, key)
        self._shapes, self._tree = jax.tree.flatten(shapes)

        def encode(x: jax.Array, worker: int, count: int) -> list[jax.Array]:
            return jax.tree.leaves(compressor.encode(x, _key(worker, count)))

        def decode(parts: list[jax.Array], worker: int, count: int) -> jax.Array:
            payload = jax.tree.unflatten(self._tree, parts)
            return compressor.decode(payload, like, _key(worker, count))

        self._encode, self._decode = jax.jit(encode), jax.jit(decode)
        self.unpack(self.pack(np.zeros(size, np.float32), 0, 0), 0, 0)  # compiles both

    def pack(self, x: np.ndarray, worker: int, count: int) -> bytes:
        """The bytes of one gradient of a worker, f32[size]; `count` is the number before it."""
        return b''.join(np.asarray(part).tobytes() for part in self._encode(x, worker, count))

    def unpack(self, data: bytes, worker: int, count: int) -> np.ndarray:
        """What was packed, without what the compressor lost: f32[size]."""
        parts, at = [], 0
        for shape in self._shapes:
            part = np.frombuffer(data, shape.dtype, int(np.prod(shape.shape)), at)
            parts.append(part.reshape(shape.shape))
            at += part.nbytes
        return np.asarray(self._decode(parts, worker, count))


def _key(worker: Any, count: Any) -> jax.Array:
    """The same on both sides."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), worker), count)
