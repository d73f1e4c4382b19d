"""A ring: the last arrays that were computed, each in a slot along the first axis."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from gradzip._base import Array


@jax.custom_jvp
def replaced(ring: Array, slot: Array, value: Array) -> Array:
    """The ring with a value in a slot, in place where the ring dies here.

    Where the slot is the same for all workers that `jax.vmap` simulates, one slice of the batch is
    written. Otherwise, and where it is differentiated, it is a scatter.
    """
    return _replaced(ring, slot, value)


@replaced.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    ring, slot, value = primals
    ring_tangent, _, value_tangent = tangents
    if not jnp.issubdtype(ring.dtype, jnp.floating):  # packed messages have no derivative
        return _scattered(ring, slot, value), ring_tangent
    return _scattered(ring, slot, value), _scattered(ring_tangent, slot, value_tangent)


def _scattered(ring: Array, slot: Array, value: Array) -> Array:
    return ring.at[slot].set(value)


@jax.custom_batching.custom_vmap
def _replaced(ring: Array, slot: Array, value: Array) -> Array:
    return lax.dynamic_update_index_in_dim(ring, value, slot, 0)


@_replaced.def_vmap
def _(size: int, batched: list, ring: Array, slot: Array, value: Array) -> tuple[Array, bool]:
    ring_batched, slot_batched, value_batched = batched
    ring = ring if ring_batched else jnp.broadcast_to(ring, (size, *ring.shape))
    value = value if value_batched else jnp.broadcast_to(value, (size, *value.shape))
    if slot_batched:
        return jax.vmap(_scattered)(ring, slot, value), True
    return lax.dynamic_update_index_in_dim(ring, value, slot, 1), True


@jax.custom_jvp
def after(value: Array, read: Array) -> Array:
    """The value, which XLA computes after what was read.

    A ring is read and then written. If the value that is written depends on what was read, XLA
    writes in place. Otherwise it copies the ring first, because the two might come in any order.
    XLA does not see that nothing is added here, but LLVM does, so that it costs nothing.
    """
    kind = jnp.dtype(f'int{8 * value.dtype.itemsize}')
    bits = lax.bitcast_convert_type(read, kind) & jnp.iinfo(kind).max
    nothing = jnp.minimum(bits, 0)
    return lax.bitcast_convert_type(lax.bitcast_convert_type(value, kind) | nothing, value.dtype)


@after.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return after(*primals), tangents[0]
