"""What a training step sends, in a few lines of text."""

from __future__ import annotations

import math

import jax
import optax

from gradzip import _traffic as traffic
from gradzip._base import PyTree
from gradzip._compressors.identity import Identity
from gradzip._feedback.compress import compress
from gradzip._quantities import speed

COSTS = 100, 10, 1  # ms by which an exchange may take longer than the exact mean, in the report


def report(
    tx: optax.GradientTransformation,
    params: PyTree,
    axis_sizes: dict[str, int],
    names: tuple[str, ...],
) -> str:
    """Returns a few lines on what a step sends, compared with the exact float32 mean.

    Args:
      tx: a chain.
      params: tree of arrays, or of their shapes and dtypes, as one worker has them.
      axis_sizes: the size of every axis that tx may name.
      names: the axes of the workers.
    """
    likes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), params)
    exact = compress(Identity(), names)
    entries = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(likes))
    workers = math.prod(axis_sizes[name] for name in names)
    found = traffic.collectives_of(tx, likes, axis_sizes)
    size, full = sum(c.bytes for c in found), 4 * entries
    if entries and workers > 1 and not size:
        raise ValueError(
            f'The chain sends nothing over {names}, so the workers would drift apart. '
            'Put an exchange into it, such as gradzip.error_feedback(gradzip.TopK(0.01), '
            f'axis_name={names!r}).'
        )
    if workers == 1:
        return 'gradzip: with one worker, nothing is sent.'
    saved = traffic.link_bytes(exact, likes, axis_sizes) - sum(c.sent for c in found)
    head = (
        f'gradzip: {workers} workers, {entries:,} entries; {size:,} bytes per worker and step, '
        f'{full / max(size, 1):.3g} times fewer than float32.'
    )
    if saved <= 0:
        return f'{head}\nIt never pays: every link carries {-saved:,} bytes more than for a mean.'
    below = ', '.join(f'{speed(8e3 * saved / cost)} if it costs {cost} ms' for cost in COSTS)
    return (
        f'{head}\nEvery link carries {saved:,} bytes less per step. Compression pays on links '
        f'slower than {below}.'
    )
