"""What one worker's message weighs."""

from __future__ import annotations

import math

import jax

import gradzip as gz


def message_bits(compressor: gz.Compressor, like: jax.ShapeDtypeStruct) -> int:
    """Bits of a compressor's payload, counted on its arrays.

    `gz.payload_bytes` also counts the padding of a gathered buffer to rows of 512 bytes. So it
    crosses a wire. Beside a million entries that is nothing, with 30 it would be all that one sees.
    (Bernoulli's message has room for the most entries that a draw may keep, not for the average.)
    """
    payload = jax.eval_shape(lambda x: compressor.encode(x, jax.random.key(0)), like)
    return 8 * sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(payload))
