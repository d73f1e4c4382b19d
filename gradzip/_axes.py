"""What depends on JAX's mappers: which axes are mapped, which values vary over them, which worker.

`vmap`, `pmap` and `shard_map` differ in two ways that matter here. Only `shard_map`, unless
check_vma=False, tracks which values vary between workers. There, `jax.grad` with respect to
replicated parameters already returns the sum over the workers; `localize` avoids this, and
`check_local` raises where it was forgotten. Each mapper also has its own way of being told which
parts of a state differ between workers, which `gradzip.state_specs` produces.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator, Set

import jax
import jax.numpy as jnp
from jax import lax

from gradzip._base import Array, AxisName, PerWorker, PyTree
from gradzip._compat import compiler_axes, sharded_axes, varying


def names_of(axis_name: AxisName | None) -> tuple[str, ...]:
    """Returns the axis names as a tuple, empty for None, and raises for any other object."""
    if axis_name is None:
        return ()
    names = axis_name if isinstance(axis_name, tuple) else (axis_name,)
    if not names or not all(isinstance(name, str) for name in names):
        raise TypeError(
            f'axis_name must be a string, a non-empty tuple of strings, or None for one worker; '
            f'got {axis_name!r}.'
        )
    if len(set(names)) < len(names):
        raise ValueError(f'axis_name names an axis twice: {axis_name!r}.')
    return names


def tracked(name: str) -> bool:
    """Whether JAX tracks here what varies over this axis: in shard_map with check_vma=True."""
    return name in varying(lax.axis_index(name))


def check_bound(axis_name: AxisName | None) -> None:
    """Raises ValueError if an axis of this name is not mapped here."""
    for name in names_of(axis_name):
        try:
            lax.axis_size(name)
        except NameError:
            raise ValueError(
                f'No axis named {name!r} is mapped here, so there are no workers to exchange with. '
                f'Run the step under jax.vmap or jax.pmap with axis_name={name!r}, or under '
                'jax.shard_map over a mesh with that axis; axis_name=None means one worker.'
            ) from None


def localize(params: PyTree, axis_name: AxisName) -> PyTree:
    """Returns params such that `jax.grad` with respect to them is this worker's own gradient.

    Inside `shard_map`, the gradient with respect to replicated parameters is the sum over the
    workers, and the gradient with respect to `localize(params, axis_name)` is local. Under `vmap`,
    `pmap` and `shard_map(check_vma=False)` gradients are local anyway, and `localize` changes
    nothing.

    Args:
      params: tree of arrays.
      axis_name: the axis of workers, or a tuple of axes.

    Returns:
      The same values, typed as varying over the axis.

    Raises:
      ValueError: no such axis is mapped here.
      TypeError: axis_name is not an axis name.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> def worker(w, x):
      ...   return jax.grad(lambda w: jnp.sum(w * x))(gz.localize(w, 'data'))
      >>> jax.vmap(worker, in_axes=(None, 0), axis_name='data')(jnp.ones([]), jnp.arange(2.0))
      Array([0., 1.], dtype=float32)
    """
    check_bound(axis_name)
    names = {name for name in names_of(axis_name) if tracked(name)}
    return jax.tree.map(lambda x: _vary_over(x, names), params)


def vary_like(tree: PyTree, like: PyTree) -> PyTree:
    """Returns every leaf, typed as varying over the axes over which its counterpart varies."""
    return jax.tree.map(lambda x, y: _vary_over(x, varying(y)), tree, like)


def _vary_over(x: Array, names: Set[str]) -> Array:
    missing = tuple(sorted(names - varying(x)))
    return lax.pcast(x, missing, to='varying') if missing else x


def check_local(updates: PyTree, axis_name: AxisName | None, memory: PyTree = None) -> None:
    """Raises if gradients are not each worker's own, or if a memory would mix those of workers.

    Args:
      updates: the gradients.
      axis_name: the axes over which they are about to be exchanged.
      memory: the tree that remembers them, with the structure of updates; it is compared where
        axis_name is None, because a memory without an axis must not receive varying gradients.
    """
    check_bound(axis_name)
    _check_unsharded(updates, axis_name)
    for name in names_of(axis_name):
        if tracked(name):
            _check_varies(updates, name)
    if axis_name is None and memory is not None:
        _check_same(updates, memory)


def _check_unsharded(updates: PyTree, axis_name: AxisName | None) -> None:
    for path, gradient in jax.tree_util.tree_leaves_with_path(updates):
        if names := sharded_axes(gradient):
            raise ValueError(
                f'The gradient at {path_of(path)!r} is sharded over {names} of an explicit mesh. '
                'gradzip compresses whole leaves and exchanges them over mapped axes only: run the '
                'step under jax.shard_map over all axes of the mesh, or use gradzip.data_parallel, '
                'with specs= if parameters are sharded.'
            )
    left = compiler_axes(names_of(axis_name))
    if left:
        raise ValueError(
            f'The axes {left} of the mesh are left to the compiler here, so that a leaf which is '
            'sharded over them would be gathered to be compressed. Wrap the exchange as '
            'gradzip.per_shard(exchange, specs), with the specs of the parameters over these axes '
            '(jax.P() for all if none is sharded), or run the step under jax.shard_map over all '
            'axes of the mesh.'
        )


def _check_varies(updates: PyTree, name: str) -> None:
    for path, gradient in jax.tree_util.tree_leaves_with_path(updates):
        if name not in varying(gradient):
            raise ValueError(
                f'The gradient at {path_of(path)!r} is the same on every worker of {name!r}, so '
                'there is nothing to exchange.\nEither jax.grad has summed over the workers, as it '
                'does inside shard_map with respect to replicated params: differentiate with '
                f'respect to gradzip.localize(params, {name!r}).\nOr the gradients have been '
                'averaged or exchanged before: a chain may hold one exchange over an axis, and '
                'optax.MultiSteps must not be around it (use gradzip.every).'
            )


def _check_same(updates: PyTree, memory: PyTree) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(updates)
    for (path, gradient), remembered in zip(leaves, jax.tree.leaves(memory), strict=True):
        extra = sorted(varying(gradient) - varying(remembered))
        if extra:
            name = extra[0] if len(extra) == 1 else tuple(extra)
            raise ValueError(
                f'The gradient at {path_of(path)!r} differs between the workers of {name!r}, but '
                'this transformation has a memory and no axis, so it would mix them: pass '
                f'axis_name={name!r}.'
            )


def path_of(path: tuple) -> str:
    """Returns a leaf's place in its tree as Python would index it, or 'the only leaf'."""
    return jax.tree_util.keystr(path) or 'the only leaf'


def worker_count(axis_name: AxisName | None) -> int:
    """Returns the number of workers, which is 1 for None."""
    return math.prod(lax.axis_size(name) for name in names_of(axis_name))


_ON_DEVICES = contextvars.ContextVar('on_devices', default=False)


@contextlib.contextmanager
def traced_for_devices() -> Iterator[None]:
    """Where the traffic of a program is counted: none of its axes is one of `jax.vmap`."""
    token = _ON_DEVICES.set(True)
    try:
        yield
    finally:
        _ON_DEVICES.reset(token)


def simulated_axes(axis_name: AxisName | None) -> tuple[str, ...]:
    """Returns the axes whose workers one device simulates by `jax.vmap`."""
    devices = jax.sharding.get_abstract_mesh().manual_axes
    names = () if _ON_DEVICES.get() else names_of(axis_name)
    return tuple(name for name in names if name not in devices)


def worker_index(axis_name: AxisName | None) -> Array:
    """Returns the number of this worker, in row-major order over a tuple of axes: i32[]."""
    index = jnp.zeros([], jnp.int32)
    for name in names_of(axis_name):
        index = index * lax.axis_size(name) + lax.axis_index(name)
    return index


def new_local(tree: PyTree, axis_name: AxisName | None) -> PyTree:
    """Marks a first state, which is the same on all workers, as each worker's own.

    It may be made outside of the mapper, so the worker is not known yet: its number is -1. Without
    an axis, the tree is returned as it is.
    """
    if axis_name is None:
        return tree
    rows = jax.tree.map(lambda x: x[None], tree)
    return PerWorker(rows, names_of(axis_name), jnp.full([1], -1, jnp.int32))


def wrap_local(tree: PyTree, axis_name: AxisName | None) -> PyTree:
    """Marks a tree as this worker's own. Without an axis, the tree is returned as it is."""
    if axis_name is None:
        return tree
    rows = jax.tree.map(lambda x: x[None], tree)
    return PerWorker(rows, names_of(axis_name), worker_index(axis_name)[None])


def unwrap_local(tree: PyTree, axis_name: AxisName | None) -> PyTree:
    """Returns this worker's own part of what `wrap_local` marked."""
    made_for = tree.axes if isinstance(tree, PerWorker) else ()
    if made_for != names_of(axis_name):
        raise ValueError(
            f'This state was made for {_axes_text(made_for)}, but the transformation that receives '
            f'it has {_axes_text(names_of(axis_name))}. Make the state with the init of the same '
            'transformation.'
        )
    if axis_name is None:
        return tree
    for row in jax.tree.leaves(tree.rows):
        if row.shape[0] != 1:
            _refuse_rows(row.shape[0], worker_count(axis_name))
    return jax.tree.map(lambda x: x[0], tree.rows)


def nan_if_misplaced(updates: PyTree, marked: PyTree, axis_name: AxisName | None) -> PyTree:
    """Returns updates, or NaN where this worker received a row that belongs to another one.

    That happens where a state leaves a mapper as if it were replicated (out_axes=None under pmap,
    P() under shard_map with check_vma=False): every worker then continues with the memory of one.
    Types do not show it, so the rows carry the number of their worker. XLA fuses the selection
    into whatever reads the updates.
    """
    return nan_if(misplaced(marked, axis_name), updates)


def misplaced(marked: PyTree, axis_name: AxisName | None) -> Array | None:
    """Returns whether this worker received another one's row, bool[], or None without an axis."""
    if axis_name is None or marked.worker is None:
        return None
    number = marked.worker[0]
    return (number >= 0) & (number != worker_index(axis_name))


def nan_if(condition: Array | None, tree: PyTree) -> PyTree:
    """Returns a tree whose floats are NaN if a condition, which may be None, holds."""
    if condition is None:
        return tree

    def replaced(x: Array) -> Array:
        floats = jnp.issubdtype(x.dtype, jnp.floating)
        return jnp.where(condition, jnp.full_like(x, jnp.nan), x) if floats else x

    return jax.tree.map(replaced, tree)


def _axes_text(names: tuple[str, ...]) -> str:
    if not names:
        return 'no axis'
    return f'the axis {names[0]!r}' if len(names) == 1 else f'the axes {names}'


def _refuse_rows(rows: int, workers: int) -> None:
    if rows == workers:
        raise ValueError(
            f'A PerWorker state has {rows} rows where one worker runs, which must receive its own '
            'row alone: pass gradzip.state_specs(state, ...) to the mapper as the specification of '
            'the state.'
        )
    raise ValueError(
        f'Each of {workers} workers received {rows} rows of a PerWorker state, so the state was '
        f'made for {rows * workers} workers. Use gradzip.resize(state, {workers}) to continue with '
        'another number of workers.'
    )


def moved(params: PyTree, offset: PyTree) -> PyTree:
    """Returns params plus an offset that may be of a wider dtype."""
    return jax.tree.map(lambda p, o: (p.astype(o.dtype) + o).astype(p.dtype), params, offset)
