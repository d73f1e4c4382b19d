"""An exchange that runs on each shard of a model which the compiler distributes."""

from __future__ import annotations

from typing import Any

import jax
import optax

from gradzip import _validation as validation
from gradzip._base import PyTree
from gradzip._shards import shard_shapes, whole_specs
from gradzip._specs import axes_of, state_specs

P = jax.P


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
        such as `optax.clip_by_global_norm`, must be outside, where it sees whole leaves. So must
        `scale_by_newton_linesearch`: extra arguments that are functions of the params, such as
        `value_fn`, are not handed to inner.
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
    validation.check_transformation('per_shard', 'inner', inner)
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
        extra = {name: x for name, x in extra.items() if not callable(x)}  # of the whole params
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
