"""What the branches of a conditional must have in common, for the reducers that choose one."""

from __future__ import annotations

from gradzip import _axes as axes
from gradzip._base import Array, Reduced, State


def shared_types(x: Array, reduced: Reduced, state: State) -> Reduced:
    """Returns what a branch reduced x to, in the types that all branches share.

    What is sent and lost varies over the axes of `jax.shard_map` as x does, also where a branch
    returns constants.
    """
    sent, lost = axes.vary_like((reduced.sent, reduced.lost), (x, x))
    return Reduced(reduced.mean, sent, lost, state)
