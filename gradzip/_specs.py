"""How params and states lie on a mesh: the specification of a state, and the shapes of shards.

Where params are sharded over other axes of the mesh than the workers', every shard is a leaf of its
own: it is what `init` and `update` see inside `shard_map`. Memories and moments have the shape of
the shard, and together the layout of the param. Other arrays that belong to a sharded leaf, such as
the basis of `PowerSGD`, differ between shards too, and are stacked along their leading axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from gradzip._base import PerWorker, PyTree
from gradzip._compensate import CompensateState
from gradzip._delay import DelayState
from gradzip._feedback.iag import IAGState
from gradzip._leaves import ExchangeState
from gradzip._narrow import Int8Blocks
from gradzip._scale_by_delay import ScaleByDelayState
from gradzip._stale_params import StaleState

P = jax.P
RINGS = DelayState, CompensateState, StaleState  # with a ring `past` of gradients or params
KNOWN = PerWorker, *RINGS, IAGState, ExchangeState, ScaleByDelayState
RING = (None,)  # the leading axis of a ring


def state_specs(
    state: PyTree,
    worker: Any | Callable[[tuple[str, ...]], Any] = jax.P,
    replicated: Any | Callable[[], Any] = jax.P,
    *,
    params: PyTree | None = None,
) -> PyTree:
    """Returns the specification that tells a mapper which parts of a state differ by worker.

    Where params are sharded over other axes of a mesh, pass their specs as `params`. Every part of
    the state that has the tree of params, such as a memory or the moments of `optax.adam`, then has
    the specs of params, after the axis of workers if it has one. What else belongs to a sharded
    leaf, such as the basis of `PowerSGD`, has one block for each shard along its leading axis.
    Scalars, keys and all other parts are replicated.

    A state may be part of a larger tree, such as a `TrainState` or an `nnx.Optimizer` of Flax. For
    `nnx.shard_map`, which takes filters, memories are where a path contains 'rows' or 'worker'.

    Args:
      state: a state, or its shapes from `jax.eval_shape(tx.init, params)`. With `params`, it is the
        state of one worker's shards: `jax.eval_shape(tx.init, gz.shard_shapes(...))`.
      worker: the specification of a `PerWorker` part, or a function from the part's axes to it.
        The default, `jax.P`, shards the leading axis over these axes. Pass `0` for vmap.
      replicated: the specification of every other part, or a function of no arguments that returns
        it. Pass `None` for vmap.
      params: a tree of `jax.P` with the structure of params, for shard_map; None if params are not
        sharded.

    Returns:
      A prefix of the state's tree, for in_specs and out_specs of shard_map or for in_axes and
      out_axes of vmap.

    Raises:
      ValueError: the state is one of `flax.nnx.state`, which turns a `PerWorker` into a dict
        without its axes, and worker is a function of the axes: pass `worker=jax.P('data')`. Or it
        is one of these and params are given, which is not supported.
      TypeError: params are given, and a leaf of them or a specification is not a `jax.P`.

    Example:
      >>> import jax, jax.numpy as jnp, optax, gradzip as gz
      >>> tx = optax.chain(gz.delay(2, axis_name='data'), optax.sgd(0.1))
      >>> specs = gz.state_specs(jax.eval_shape(tx.init, jnp.zeros(3)))
      >>> specs[0].past, specs[0].count
      (P('data',), P())

      >>> tx = optax.chain(gz.error_feedback(gz.TopK(0.1), 'data'), optax.adam(0.1))
      >>> shards = {'w': jnp.zeros((3, 2)), 'b': jnp.zeros(3)}  # of a matrix with 8 columns
      >>> layout = {'w': jax.P(None, 'model'), 'b': jax.P()}
      >>> specs = gz.state_specs(jax.eval_shape(tx.init, shards), params=layout)
      >>> specs[0].error.rows['w'], specs[1][0].mu['w'], specs[1][0].count
      (P('data', None, 'model'), P(None, 'model'), P())
    """

    def row(names: tuple[str, ...]) -> Any:
        return worker(names) if callable(worker) else worker

    def other() -> Any:
        return replicated() if callable(replicated) else replicated

    if params is not None:
        return _Sharded(params, row, other()).specs(state)

    def spec(part: PyTree) -> Any:
        if isinstance(part, PerWorker):
            return row(part.axes)
        if _is_marked_in_nnx(part):
            if callable(worker):
                raise ValueError(
                    'state_specs received a state of flax.nnx, which does not keep the axes of a '
                    "PerWorker part: pass the nnx.Optimizer itself, or worker=jax.P('data')."
                )
            return worker
        return other()

    return jax.tree.map(
        spec, state, is_leaf=lambda part: isinstance(part, PerWorker) or _is_marked_in_nnx(part)
    )


class _Sharded:
    """Finds the specs of a state whose params have the given specs."""

    def __init__(self, params: PyTree, row: Callable, replicated: Any):
        self._specs, self._tree = jax.tree.flatten(params, is_leaf=_is_spec)
        for spec in (*self._specs, replicated):
            _check_spec(spec)
        self._row, self._replicated = row, replicated

    def specs(self, part: PyTree, lead: tuple = ()) -> PyTree:
        """Returns the specs of a state, whose arrays have leading axes with the specs `lead`."""
        return jax.tree.map(lambda x: self._one(x, lead), part, is_leaf=self._is_known)

    def _is_known(self, part: PyTree) -> bool:
        known = isinstance(part, KNOWN) or _is_marked_in_nnx(part)
        return known or self._resembles_params(part)

    def _resembles_params(self, part: PyTree) -> bool:
        """Whether part has an array, marked or not, or nothing in place of every param."""
        try:
            found = self._tree.flatten_up_to(part)
        except ValueError:
            return False
        found = [x for x in found if jax.tree.leaves(x)]
        return bool(found) and all(
            isinstance(x, PerWorker | Int8Blocks) or _is_array(x) for x in found
        )

    def _one(self, part: PyTree, lead: tuple) -> PyTree:
        if _is_marked_in_nnx(part):
            raise ValueError(
                'state_specs(params=...) does not support a state of flax.nnx: pass the state of '
                'the optax transformation itself.'
            )
        if isinstance(part, PerWorker):
            return self._marked(part, self.specs, lead)
        if isinstance(part, ScaleByDelayState):
            return self._alike(part, lead)
        if isinstance(part, RINGS):
            return self._with(part, 'past', lambda x, lead: self._over(x, _fitted, lead, RING))
        if isinstance(part, IAGState):  # a message holds all leaves, so it varies as all of them
            return self._with(part, 'messages', lambda x, lead: self._each(x, self._packed, lead))
        if isinstance(part, ExchangeState):
            return self._with(part, 'reducers', lambda x, lead: self._over(x, _stacked, lead))
        if self._resembles_params(part):
            return self._over(part, _fitted, lead)
        return P(*lead) if lead else self._replicated

    def _alike(self, part: PyTree, lead: tuple = ()) -> PyTree:
        """Returns the specs of a part that is the same for all shards."""
        return jax.tree.map(lambda x: P(*lead) if lead else self._replicated, part)

    def _with(self, part: Any, name: str, rule: Callable) -> Any:
        """Returns the specs of a state in which a rule gives those of one field."""
        rest = {f: x for f, x in part._asdict().items() if f != name}
        fields = {f: self._alike(x) if f == 'arrays' else self.specs(x) for f, x in rest.items()}
        value = getattr(part, name)
        own = self._marked(value, rule, ()) if isinstance(value, PerWorker) else rule(value, ())
        return type(part)(**fields, **{name: own})

    def _over(self, part: PyTree, rule: Callable, lead: tuple, ring: tuple = ()) -> PyTree:
        """Applies a rule to what stands in the place of every param, with the spec of the param."""
        found = self._tree.flatten_up_to(part)
        return self._tree.unflatten(
            self._each(x, lambda leaf, lead, s=s: rule(leaf, s, (*lead, *ring)), lead)
            for x, s in zip(found, self._specs, strict=True)
        )

    def _each(self, part: PyTree, rule: Callable, lead: tuple) -> PyTree:
        """Applies a rule of (array, lead) to every array of a part, marked or not."""

        def one(x: Any) -> Any:
            if isinstance(x, PerWorker):
                return self._marked(x, lambda rows, lead: self._each(rows, rule, lead), lead)
            return rule(x, lead)

        return jax.tree.map(one, part, is_leaf=lambda x: isinstance(x, PerWorker))

    def _packed(self, x: Any, lead: tuple) -> Any:
        names = dict.fromkeys(name for spec in self._specs for name in axes_of(spec))
        return _stacked(x, P(tuple(names)), lead)

    def _marked(self, part: PerWorker, rule: Callable, lead: tuple) -> PerWorker:
        row = self._row(part.axes)
        _check_spec(row)
        number: Any = None if part.worker is None else P(*lead, *row)
        return PerWorker(rule(part.rows, (*lead, *row)), part.axes, number)


def _fitted(x: Any, spec: Any, lead: tuple) -> Any:
    """The spec of an array that has the axes of its param; without these, one block a shard."""
    entries = tuple(spec)
    while entries and entries[-1] is None:
        entries = entries[:-1]
    if len(entries) + len(lead) > x.ndim:
        return _stacked(x, spec, lead)
    return P(*lead, *tuple(spec)[: x.ndim - len(lead)])


def _stacked(x: Any, spec: Any, lead: tuple) -> Any:
    """The spec of an array with one block for each shard, along its first own axis."""
    names = axes_of(spec)
    return P(*lead, names) if names and x.ndim > len(lead) else P(*lead)


def axes_of(spec: Any) -> tuple[str, ...]:
    """Returns the mesh axes that a spec names."""
    groups = (part if isinstance(part, tuple) else (part,) for part in spec)
    return tuple(name for group in groups for name in group if isinstance(name, str))


def _is_spec(x: Any) -> bool:
    return isinstance(x, P)


def _is_array(x: Any) -> bool:
    return hasattr(x, 'ndim')


def _check_spec(spec: Any) -> None:
    if not _is_spec(spec):
        raise TypeError(
            f'state_specs(params=...) needs a jax.P for every param and for every part; got '
            f'{spec!r}.'
        )


def _is_marked_in_nnx(part: PyTree) -> bool:
    """Whether part is a `PerWorker` as `flax.nnx.state` shows it, a mapping of its fields."""
    return isinstance(part, Mapping) and set(part) == {'rows', 'worker'}
