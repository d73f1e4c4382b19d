"""Some entries of an array and where they stand: what the sparse compressors share."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import lax

from gradzip import checks, positions
from gradzip.base import Array, Like
from gradzip.kernels import selection
from gradzip.positions import Positions

LARGE = 1 << 17  # up to here lax.top_k costs at most milliseconds, and compiles faster

Form = Literal['packed', 'plain']


class Sparse(NamedTuple):
    """Some entries of a flat array, in its order."""

    values: Array  # f[k]
    indices: Positions | Array  # packed, or i32[k]; distinct, ascending


def check_form(owner: str, form: str) -> None:
    """Refuses what is no way to write indices."""
    checks.one_of(owner, 'indices', form, get_args(Form))


def check_size(owner: object, x: Array) -> None:
    """Refuses arrays that int32 cannot index."""
    if x.size >= 1 << 31:
        raise ValueError(
            f'{owner!r} indexes entries with int32, but an array of shape {x.shape} has '
            f'{x.size} of them: split the parameter.'
        )


def largest(flat: Array, count: int) -> tuple[Array, Array]:
    """The entries of largest magnitude and their indices, ascending: f[count], i32[count]."""
    if flat.size > LARGE:
        return selection.top_k(flat, count)
    _, indices = lax.top_k(jnp.abs(flat), count)
    indices = lax.sort(indices)
    return flat[indices], indices


def write(indices: Array, size: int, form: Form) -> Positions | Array:
    """Indices as they travel; one that equals `size` stands for no entry."""
    return positions.encode(indices, size) if form == 'packed' else indices


def read(indices: Positions | Array, count: int, size: int) -> Array:
    """Indices as they were written: i32[count]."""
    return positions.decode(indices, count, size) if isinstance(indices, Positions) else indices


def read_all(indices: Positions | Array, count: int, size: int) -> Array:
    """The same of many payloads, stacked on a leading axis: i32[payloads, count]."""
    return jax.vmap(lambda one: read(one, count, size))(indices)


def spread(values: Array, indices: Array, like: Like) -> Array:
    """Zeros but for some entries; those that stand twice are summed, those outside dropped.

    Values and indices may have leading axes. One scatter for all payloads touches only their
    entries of the result, where a sum of dense arrays would pass over memory for every payload.
    """
    return add(jnp.zeros(like.shape, like.dtype), values, indices)


def add(x: Array, values: Array, indices: Array) -> Array:
    """x with something added to some entries; in place where x is donated or dies here."""
    flat = (
        x.ravel().at[indices.ravel()].add(values.ravel(), mode='drop', wrap_negative_indices=False)
    )
    return flat.reshape(x.shape)
