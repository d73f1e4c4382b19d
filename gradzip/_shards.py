"""The shards of params, and an exchange that runs on each of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import optax

from gradzip import _axes as axes
from gradzip._base import PyTree
from gradzip._compat import varying
from gradzip._specs import axes_of, state_specs

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
                'leaves, such as optax.clip_by_global_norm or a metric, sees shards only as well.'
            )


def per_shard(
    inner: optax.GradientTransformation, specs: PyTree
) -> optax.GradientTransformationExtraArgs:
    """Runs a transformation on each shard, where the compiler distributes the model.

    Use it inside a `shard_map` over the axis of workers alone, `axis_names={'data'}`, on a mesh
    whose other axes are of type Auto: there the loss is written as for one device, and XLA inserts
    the collectives of tensor parallelism. A compressor that sees whole leaves would make XLA gather
    them. This wrapper maps `init` and `update` over the axes that specs name, so that each shard is
    a leaf of its own, and nothing is gathered over these axes.

    Where all axes of the mesh are mapped, leaves are shards already and no wrapper is needed.

    Args:
      inner: an exchange, such as `error_feedback(TopK(0.01), 'data')`. Optimizers that treat every
        entry on its own may be outside or inside. A transformation that computes across leaves,
        such as `optax.clip_by_global_norm`, must be outside, where it sees whole leaves.
      specs: tree of `jax.P` with the structure of params, or a prefix of it; `jax.P()` for leaves
        that are not sharded. The specs name axes of the model, not those of the workers.

    Returns:
      A transformation. Call its `init` and `update` under `jax.jit`, where `jax.set_mesh` has set
      the mesh. Outside, pass `gz.state_specs(state)` to the `shard_map`, and
      `gz.state_specs(state, params=specs)` as shardings to `jax.jit`. The same key is used for all
      shards, so random schemes draw the same numbers for each shard of a leaf.

    Raises:
      TypeError: inner is not a transformation, or a leaf of specs is not a `jax.P`.
      ValueError: at trace time: no mesh is set, an axis is mapped already or is of type Explicit
        (JAX gathers explicitly sharded arrays at the boundary of a partial `shard_map`), or specs
        that do not fit params, as in `shard_shapes`.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> auto = (jax.sharding.AxisType.Auto,) * 2
      >>> mesh = jax.make_mesh((1, jax.device_count()), ('data', 'model'), axis_types=auto)
      >>> tx = gz.per_shard(gz.error_feedback(gz.TopK(0.5), 'data'), jax.P('model'))
      >>> def step(params, x):
      ...   grads = jax.grad(lambda w: jnp.sum(w * x))(gz.localize(params, 'data'))
      ...   return tx.update(grads, tx.init(params))[0]
      >>> worker = jax.shard_map(
      ...     step, in_specs=(jax.P(), jax.P('data')), out_specs=jax.P(), axis_names={'data'})
      >>> with jax.set_mesh(mesh):
      ...   update = jax.jit(worker)(jnp.zeros(16), jnp.ones(1))
      >>> update.shape
      (16,)
    """
    if not isinstance(inner, optax.GradientTransformation):
        raise TypeError(f'per_shard(inner=...) must be an optax transformation; got {inner!r}.')
    whole_specs(specs, specs)
    inner = optax.with_extra_args_support(inner)

    def places(params: PyTree) -> tuple[PyTree, PyTree, set[str]]:
        """Returns the specs of params and of the state, and the axes to map."""
        whole = whole_specs(params, specs)
        mesh = jax.sharding.get_abstract_mesh()
        names = {name for spec in jax.tree.leaves(whole) for name in axes_of(spec)}
        _check_axes(names, mesh)
        shapes = jax.eval_shape(inner.init, shard_shapes(params, whole, mesh))
        # The workers' axis is mapped outside or not at all, so only the axes of the model appear.
        state = state_specs(shapes, worker=lambda _: P(None), params=whole)
        return whole, state, names | set(mesh.auto_axes)

    def init(params: PyTree) -> PyTree:
        whole, state, names = places(params)
        mapped = jax.shard_map(inner.init, in_specs=(whole,), out_specs=state, axis_names=names)
        return mapped(params)

    def update(updates: PyTree, state: PyTree, params: PyTree | None = None, **extra: Any):
        whole, own, names = places(updates)
        mapped = jax.shard_map(
            lambda updates, state, params, extra: inner.update(updates, state, params, **extra),
            in_specs=(whole, own, P() if params is None else whole, P()),
            out_specs=(whole, own),
            axis_names=names,
        )
        return mapped(updates, state, params, extra)

    return optax.GradientTransformationExtraArgs(init, update)


def _check_axes(names: set[str], mesh: Any) -> None:
    if mesh.empty:
        raise ValueError(
            'per_shard needs a mesh: call the step under `with jax.set_mesh(mesh)`, inside a '
            'jax.shard_map over the axis of workers.'
        )
    if mapped := sorted(names & set(mesh.manual_axes)):
        raise ValueError(
            f'per_shard: {mapped} are mapped here already, so every leaf is a shard. Leave the '
            'wrapper out.'
        )
    if explicit := sorted(set(mesh.explicit_axes) & names):
        raise ValueError(
            f'per_shard: {explicit} are axes of type Explicit, for which JAX gathers sharded '
            'arrays at the boundary of a partial shard_map. Make the mesh with axis_types='
            '(jax.sharding.AxisType.Auto, ...), or run the step under a shard_map over all axes.'
        )
