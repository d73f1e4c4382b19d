"""The bytes that a step sends, predicted from traced shapes. `_hlo` reads them after compilation.

Both count the operands of collectives in bytes per worker and step: what a worker passes to an
all-gather, an all-reduce, a reduce-scatter or an all-to-all. How often a link carries these bytes
depends on the algorithm behind the collective; `Collective` assumes rings. Of a conditional, the
branch with the most bytes counts; the body of a loop counts once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import _axes as axes, _leaves as leaves
from gradzip._base import PyTree, Scheme, memory_like

COLLECTIVES = ('psum', 'pmin', 'pmax', 'all_gather', 'reduce_scatter', 'all_to_all', 'ppermute')
ONE_PASS = ('reduce_scatter', 'all_to_all')  # every entry crosses a link once; psum: there and back


def payload_bytes(scheme: Scheme, params: PyTree, *, workers: int = 2) -> int:
    """Returns the bytes that one worker passes to collectives in one step, padding included.

    They are counted on the shapes of the traced exchange. `wire_bytes` of the compiled step of
    `compress`, `error_feedback` or `ef21` returns the same number for CPU and TPU.

    Args:
      scheme: a Compressor, a Reducer, or a function from a leaf (shape and dtype) to one.
      params: tree of arrays, or of their shapes and dtypes.
      workers: the number of workers, on which only reducers that cut arrays into chunks depend.

    Returns:
      Bytes, a Python int.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> params = jnp.zeros(100_000)
      >>> gz.payload_bytes(gz.Identity(), params), gz.payload_bytes(gz.TopK(0.01), params)
      (400000, 5120)
    """
    axis = 'workers'
    likes = jax.tree.map(memory_like, params)

    def step(tree: PyTree) -> PyTree:
        state = leaves.init(scheme, tree, jax.random.key(0), memory=False)
        return leaves.exchange(scheme, tree, state, axis, memory=False).mean

    return _bytes(_traced(step, likes, {axis: workers}))


def step_bytes(tx: optax.GradientTransformation, params: PyTree, workers: Mapping[str, int]) -> int:
    """Returns the bytes that one worker passes to collectives in one update of a transformation.

    They are counted on the traced update, with metrics and wrappers, and equal `wire_bytes` of the
    compiled update. A collective over a single worker counts nothing.

    Args:
      tx: a transformation, usually a chain.
      params: tree of arrays, or of their shapes and dtypes; gradients have the same.
      workers: the number of workers on every axis that tx names, such as `mesh.shape`.

    Returns:
      Bytes, a Python int.

    Raises:
      ValueError: tx names an axis that workers lacks.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = optax.chain(gz.error_feedback(gz.TopK(0.01), 'data'), optax.sgd(0.1))
      >>> gz.step_bytes(tx, jnp.zeros(100_000), {'data': 8})
      5120
    """
    return _bytes(collectives_of(tx, params, workers))


class Collective(NamedTuple):
    """One collective of a traced program, as the usual ring algorithms run it."""

    name: str  # of the JAX primitive
    bytes: int  # of its operands on one worker
    workers: int  # that take part

    @property
    def sent(self) -> int:
        """The bytes that each worker sends over its link, in all rounds together."""
        if self.name == 'ppermute':
            return self.bytes
        others = self.workers - 1
        if self.name == 'all_gather':
            return others * self.bytes
        passes = 1 if self.name in ONE_PASS else 2
        return passes * others * self.bytes // self.workers

    @property
    def rounds(self) -> int:
        """The number of messages that have to wait for one another."""
        if self.name == 'ppermute':
            return 1
        passes = 1 if self.name in (*ONE_PASS, 'all_gather') else 2
        return passes * (self.workers - 1)


def collectives_of(
    tx: optax.GradientTransformation, params: PyTree, workers: Mapping[str, int]
) -> list[Collective]:
    """Returns the collectives of one update, in order. Arguments are those of `step_bytes`."""
    return _traced(lambda grads: _update(tx, grads), params, workers)


def link_bytes(tx: optax.GradientTransformation, params: PyTree, workers: Mapping[str, int]) -> int:
    """Returns the bytes that one worker sends over its link in one update.

    Ring algorithms send 2 (W - 1) / W of the operand of an all-reduce, W - 1 times that of an
    all-gather, and (W - 1) / W of that of a reduce-scatter or an all-to-all.
    """
    return sum(c.sent for c in collectives_of(tx, params, workers))


def _update(tx: optax.GradientTransformation, grads: PyTree) -> PyTree:
    tx = optax.with_extra_args_support(tx)
    asked = {  # some want the loss or its value, marina these
        'value': jnp.zeros([]), 'value_fn': lambda params: jnp.zeros([]), 'previous_grads': grads,
    }  # fmt: skip
    return tx.update(grads, tx.init(grads), grads, **asked)


def _traced(step: Callable, like: PyTree, axis_sizes: Mapping[str, int]) -> list[Collective]:
    """Returns the collectives of a program, traced where these axes are mapped."""
    likes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like)
    sizes = dict(axis_sizes)
    with axes.traced_for_devices():
        return _found(jax.make_jaxpr(step, axis_env=list(sizes.items()))(likes).jaxpr, sizes)


def _found(jaxpr: Any, sizes: dict[str, int]) -> list[Collective]:
    found = []
    for equation in jaxpr.eqns:
        name = equation.primitive.name.removesuffix('_invariant')
        workers = _workers(equation, sizes) if name in COLLECTIVES else 1
        if workers > 1 and not _stays(equation):
            size = sum(v.aval.size * v.aval.dtype.itemsize for v in equation.invars)
            found.append(Collective(name, size, workers))
        inner = [_found(j, sizes) for j in _inner(equation)]
        if name == 'cond':
            inner = [max(inner, key=_bytes, default=[])]
        found += itertools.chain(*inner)
    return found


def _inner(equation: Any) -> list[Any]:
    """Returns the jaxprs inside an equation."""
    values = [
        v for p in equation.params.values() for v in (p if isinstance(p, tuple | list) else (p,))
    ]
    opened = [getattr(value, 'jaxpr', value) for value in values]
    return [jaxpr for jaxpr in opened if hasattr(jaxpr, 'eqns')]


def _workers(equation: Any, sizes: dict[str, int]) -> int:
    names = equation.params.get('axes', equation.params.get('axis_name'))
    names = names if isinstance(names, tuple | list) else (names,)
    return math.prod(sizes[name] for name in names if isinstance(name, str))


def _stays(equation: Any) -> bool:
    """Whether a permutation sends every worker's value to that worker itself."""
    pairs = equation.params.get('perm')
    return pairs is not None and all(source == target for source, target in pairs)


def _bytes(collectives: list[Collective]) -> int:
    return sum(c.bytes for c in collectives)
