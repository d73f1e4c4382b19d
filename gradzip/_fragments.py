"""Groups of leaves that take turns to be exchanged, as in Streaming DiLoCo.

Every fragment has states of its own, for the tree of params with `optax.MaskedNode` in place of the
leaves of the other fragments.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradzip import _axes as axes, _leaves as leaves
from gradzip._base import Array, PyTree
from gradzip._conditional import run_one_of, zeros


class Fragments:
    """The exchange and the outer step of each fragment, at most one fragment in a step."""

    def __init__(self, exchange: optax.GradientTransformation, outer: Any, fragments: int):
        self._exchange, self._outer, self._fragments = exchange, outer, fragments

    def parts(self, tree: PyTree) -> list[PyTree]:
        """Returns the tree once for each fragment, without the leaves of the others."""
        if self._fragments == 1:
            return [tree]
        xs, treedef = jax.tree.flatten(tree)
        owner = _dealt([x.size for x in xs], self._fragments)
        return [
            treedef.unflatten(
                [
                    x if mine == part else optax.MaskedNode()
                    for x, mine in zip(xs, owner, strict=True)
                ]
            )
            for part in range(self._fragments)
        ]

    def select(self, part: Array, new: PyTree, old: PyTree) -> PyTree:
        """Returns `new` in the leaves of fragment `part` (from 1; 0: none), and `old` elsewhere."""
        xs, treedef = jax.tree.flatten(new)
        owner = _dealt([x.size for x in xs], self._fragments)
        chosen = [
            jnp.where(part == mine + 1, x, y)
            for x, y, mine in zip(xs, jax.tree.leaves(old), owner, strict=True)
        ]
        return treedef.unflatten(chosen)

    def run(
        self, part: Array, offset: PyTree, params: PyTree, states: tuple, extra: dict[str, Any]
    ) -> tuple[PyTree, tuple]:
        """Returns the updates of fragment `part` (from 1; 0 for none) and the states after it."""
        pseudo = jax.tree.map(jnp.negative, offset)

        def synchronise(i: int) -> Any:
            def run(states: tuple) -> tuple[PyTree, tuple]:
                exchanges, outers = states
                own, common = self.parts(pseudo)[i], self.parts(params)[i]
                mean, exchanged = self._exchange.update(own, exchanges[i], common)
                new, stepped = self._outer.update(mean, outers[i], common, **extra)
                new = leaves.cast_like(new, common)
                states = _replace(exchanges, i, exchanged), _replace(outers, i, stepped)
                return self._filled(new, params), states

            return run

        return run_one_of(part, [synchronise(i) for i in range(self._fragments)], states)

    def _filled(self, part: PyTree, params: PyTree) -> PyTree:
        """Returns the update of a fragment as one of all params, zero in the other fragments."""
        xs, treedef = jax.tree.flatten(params)
        return treedef.unflatten(
            [  # every branch of the conditional must have the same dtypes
                axes.vary_like(zeros(x), x) if isinstance(u, optax.MaskedNode) else u
                for x, u in zip(xs, treedef.flatten_up_to(part), strict=True)
            ]
        )


def due(count: Array, spacing: int, fragments: int) -> Array:
    """Returns the fragment that is due after so many steps, from 1, and 0 if none is."""
    turn = count // spacing
    return jnp.where((count > 0) & (count % spacing == 0), (turn - 1) % fragments + 1, 0)


def _dealt(sizes: list[int], fragments: int) -> list[int]:
    """Returns the fragment of each leaf; each leaf, from the largest, goes to the smallest one."""
    if len(sizes) < fragments:
        raise ValueError(
            f'local_steps(fragments={fragments}): there are only {len(sizes)} leaves to deal out.'
        )
    owner, load = [0] * len(sizes), [0] * fragments
    for leaf in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        owner[leaf] = min(range(fragments), key=lambda part: load[part])
        load[owner[leaf]] += sizes[leaf] + 1  # so that empty leaves count as well
    return owner


def _replace(parts: tuple, i: int, new: Any) -> tuple:
    return (*parts[:i], new, *parts[i + 1 :])
