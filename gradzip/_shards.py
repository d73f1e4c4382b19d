"""The shards of params: their shapes, and checks of what may differ between them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from gradzip import _axes as axes, _collectives as collectives
from gradzip._base import PyTree
from gradzip._compat import varying
from gradzip._specs import axes_of

P = jax.P


def shard_shapes(params: PyTree, specs: PyTree, mesh: Any) -> PyTree:
    """Returns the shapes and dtypes of one device's shards of params.

    Args:
      params: tree of arrays, or of their shapes and dtypes.
      specs: tree of `jax.P` with the structure of params, or a prefix of it.
      mesh: the mesh, or its abstract mesh.

    Returns:
      Tree of `jax.ShapeDtypeStruct`, such as `payload_bytes` and `jax.eval_shape` take.

    Raises:
      TypeError: a leaf of specs is not a `jax.P`.
      ValueError: specs that are no prefix of params; a spec with more entries than its param has
        axes, with an axis that the mesh lacks, or that does not divide its param evenly.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> mesh = jax.sharding.AbstractMesh((2, 4), ('data', 'model'))
      >>> shards = gz.shard_shapes({'w': jnp.zeros((64, 512))}, jax.P(None, 'model'), mesh)
      >>> shards['w'].shape, gz.payload_bytes(gz.Identity(), shards)
      ((64, 128), 32768)
    """
    specs = whole_specs(params, specs)

    def shape(path: tuple, x: Any, spec: Any) -> jax.ShapeDtypeStruct:
        where = f'specs: the param at {axes.path_of(path)!r} of shape {x.shape} has {spec}'
        unknown = [name for name in axes_of(spec) if name not in mesh.shape]
        if unknown:
            raise ValueError(f'{where}, but the mesh has the axes {mesh.axis_names}.')
        if len(spec) > len(x.shape):
            raise ValueError(f'{where}, which has more entries than the param has axes.')
        sizes = [1] * len(x.shape)
        for i, entry in enumerate(spec):
            for name in axes_of((entry,)):
                sizes[i] *= mesh.shape[name]
        if any(n % size for n, size in zip(x.shape, sizes, strict=True)):
            raise ValueError(
                f'{where}, which cuts its axes into {tuple(sizes)} parts. Every axis must be a '
                'multiple of its number of parts: pad the param, or replicate it with jax.P().'
            )
        parts = tuple(n // size for n, size in zip(x.shape, sizes, strict=True))
        return jax.ShapeDtypeStruct(parts, x.dtype)

    return jax.tree_util.tree_map_with_path(shape, params, specs)


class Layout(NamedTuple):
    """How params lie on a mesh."""

    specs: PyTree  # a jax.P for each param
    shapes: PyTree  # of one device's shards


def layout(params: PyTree, specs: PyTree, mesh: Any, workers: tuple[str, ...]) -> Layout:
    """Returns the layout of params, which must be the same on all workers.

    Raises:
      TypeError, ValueError: as `shard_shapes`, and where specs name an axis of workers.
    """
    whole = whole_specs(params, specs)
    for path, spec in jax.tree_util.tree_leaves_with_path(whole):
        if shared := sorted(set(axes_of(spec)) & set(workers)):
            raise ValueError(
                f'specs: the param at {axes.path_of(path)!r} has {spec}, but {shared} are axes of '
                'workers, on which params are the same. Shard params over other axes of the mesh.'
            )
    return Layout(whole, shard_shapes(params, whole, mesh))


def whole_specs(params: PyTree, specs: PyTree) -> PyTree:
    """Returns specs with the structure of params, of which they may be a prefix."""
    is_spec = lambda x: isinstance(x, P)  # noqa: E731
    for spec in jax.tree.leaves(specs, is_leaf=is_spec):
        if not is_spec(spec):
            raise TypeError(f'specs must be a tree of jax.P; got the leaf {spec!r}.')
    try:
        return jax.tree.map(
            lambda spec, part: jax.tree.map(lambda _: spec, part), specs, params, is_leaf=is_spec
        )
    except ValueError as error:
        raise ValueError(
            f'specs must have the structure of params, or be a prefix of it: {error}'
        ) from error


def check_replicated(what: str, tree: PyTree, specs: PyTree, names: tuple[str, ...]) -> None:
    """Raises if a value differs between shards although its spec says that it does not.

    Args:
      what: what the tree is, in words, for the error.
      tree: tree of arrays inside `shard_map`.
      specs: tree of `jax.P`, or a prefix of it.
      names: the axes of the workers, which are not looked at.
    """
    whole = whole_specs(tree, specs)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for (path, leaf), spec in zip(leaves, jax.tree.leaves(whole), strict=True):
        extra = sorted(varying(leaf) - set(names) - set(axes_of(spec)))
        if extra:
            raise ValueError(
                f'{what} at {axes.path_of(path)!r} differs between the shards of {tuple(extra)}, '
                f'but its spec is {spec}. In a sharded model every device sees its own shards: '
                'combine what comes from several of them by a collective in the loss, such as '
                f'jax.lax.psum(x, {extra[0]!r}). A transformation that computes a scalar from '
                'leaves, such as optax.clip_by_global_norm, sees shards only as well.'
            )


def averaged_metrics(state: PyTree, names: tuple[str, ...]) -> PyTree:
    """Returns a state in which the metrics of exchanges are averaged over the shards of a model.

    Args:
      state: the state of a chain inside `shard_map`.
      names: the axes of the workers, over which metrics are averaged already.
    """

    def one(path: tuple, x: Any) -> Any:
        shards = tuple(sorted(varying(x) - set(names)))
        is_metric = any(getattr(key, 'name', None) == 'metrics' for key in path)
        return collectives.mean(x, shards) if shards and is_metric else x

    return jax.tree_util.tree_map_with_path(one, state)
