"""A training step over a mesh of devices, without writing shard_map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import (
    _agreement as agreement,
    _axes as axes,
    _collectives as collectives,
    _leaves as leaves,
    _replication as replication,
    _report as report,
    _shards as shards,
    _validation as validation,
)
from gradzip._base import Array, AxisName, KeyLike, PyTree
from gradzip._local_params import local_params
from gradzip._specs import state_specs
from gradzip._step import Step, Training

Loss = Callable[..., Any]


def data_parallel(
    loss: Loss,
    params: PyTree,
    tx: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    axis_name: AxisName,
    *,
    aux: PyTree = None,
    key: KeyLike | None = None,
    specs: PyTree | None = None,
    donate: bool = True,
    printer: Callable[[str], Any] | None = print,
) -> tuple[Training, Step]:
    """Places params and state on a mesh and returns them together with a compiled step.

    Every worker takes the gradient of `loss` on its part of the batch; `tx` exchanges the gradients
    and computes the update. Parameters are the same on every worker, and each worker keeps its own
    memory.

    What a step sends is printed once: the bytes that a worker passes to collectives, the ratio to
    the exact float32 mean, and the link speed (for ring algorithms) below which compression pays,
    for three assumptions of what it costs to compute. `gradzip.plan` measures that cost.

    The mean loss is passed to `tx` as `value`, for transformations such as
    `optax.contrib.reduce_on_plateau`, and the worker's loss as `value_fn`, a function of the params
    on this batch, for `scale_by_newton_linesearch` and `hessian_feedback`. Clip before the exchange
    with `gradzip.per_worker(optax.clip_by_global_norm(1.0), axis)`, which clips the gradient of
    each worker, or after it with `optax.clip_by_global_norm`, which clips the mean. Accumulate
    gradients with `gradzip.every`, or the parts of one batch inside the loss, by
    `jnp.mean(jax.lax.map(jax.checkpoint(loss_of_part), parts))`. For bfloat16, keep params in it,
    or convert them in the loss; memories are float32. A loss whose scale follows float16 gradients
    needs a step of your own, which unscales them before the exchange: see notebooks/03_flax.ipynb.
    With `gradzip.local_steps`, workers take their gradients at params of their own.

    With `specs`, params are sharded over the other axes of the mesh, as in tensor parallelism. The
    loss then sees the shards of params and the worker's whole part of the batch, and contains the
    collectives over those axes, such as `jax.lax.psum(h @ w, 'model')` after a product whose inner
    dimension is sharded. Its result must be the same on all shards. `jax.grad` sums the gradients
    of replicated params over the shards by itself. Each shard is compressed on its own, with the
    same key as the others, and the model's axes carry nothing for the exchange. Metrics of the
    exchange are averaged over the shards too. Transformations that compute a scalar across leaves,
    such as `optax.clip_by_global_norm`, would see only shards; where this shows in the types it is
    refused. Pass all axes of the mesh to `skip_nonfinite`.

    Args:
      loss: a function of (params, batch), and of the keyword arguments `aux` and `key` if these are
        given here. It returns the mean loss over its batch, a scalar; or a tuple of the loss and a
        dict of metrics; with `aux`, a tuple of the loss and the new aux, or of the loss, the new
        aux and a dict of metrics.
      params: tree of arrays; they are copied.
      tx: a chain with an exchange over axis_name, then an optimizer.
      mesh: the devices. Over several processes, all of them pass the same params.
      axis_name: the axis of workers, or a tuple of axes. Without specs, it must name all axes of
        the mesh.
      aux: auxiliary state of the model, such as running statistics of batch normalisation: a tree
        of arrays. After each step, floating-point leaves are averaged over the workers, and of
        other leaves the largest value is kept. That costs an all-reduce of their size.
      key: for a loss that draws, as for dropout: an int or a typed key. The loss receives a key of
        its own for each step and worker, the same on all shards of a model.
      specs: tree of `jax.P` with the structure of params, or a prefix of it: how params are sharded
        over the axes of the mesh that axis_name does not name. None if they are not.
      donate: whether a step may reuse the buffers of its input, which then cannot be used again.
      printer: a function that receives the report, on the first process; None prints nothing.

    Returns:
      `(state, step)`. `step(state, batch)` returns the next state and the mean loss, and as a third
      value the metrics, averaged over the workers, if the loss returns any. The batch is a tree of
      arrays whose leading axis is split among the workers in order. Over several processes, each
      passes a batch of the same shape, of which the rows of its own workers are used, or an array
      that is placed on the mesh already. `step.lower(state, batch)` lowers the step as
      `jax.jit(...).lower` does; `gradzip.wire_bytes(step.lower(state, batch).compile())` reads what
      it sends.

    Raises:
      TypeError: mesh is not a Mesh, tx is not a transformation, key is not a key, or an optax
        wrapper that runs a transformation conditionally is around the exchange; a leaf of specs is
        not a `jax.P`.
      ValueError: axes that are not those of the mesh; specs that do not fit params (as in
        `shard_shapes`) or that name an axis of workers; a chain that sends nothing; over several
        processes, params whose shapes differ between them (`check_same_shapes`). At the first step:
        a leaf that is not exchanged, a state that differs between workers without being marked, a
        leaf of the batch that cannot be split evenly, a loss that is not a scalar, or a batch whose
        shape differs between processes. Batches are compared again when their shapes change; a
        change on a single process is not detected. With specs, at the first step: something
        replicated that differs between shards. At any step: a state that was donated before.

    Example:
      >>> import jax, jax.numpy as jnp, optax, gradzip as gz
      >>> mesh = jax.make_mesh((jax.device_count(),), ('data',))
      >>> tx = optax.chain(gz.error_feedback(gz.TopK(0.5), 'data'), optax.sgd(0.1))
      >>> state, step = gz.data_parallel(
      ...     lambda w, x: jnp.mean((x @ w - 1) ** 2), jnp.zeros(4), tx, mesh, 'data', printer=None)
      >>> state, value = step(state, jnp.ones((8, 4)))
      >>> float(value)
      1.0

      A matrix whose rows are sharded over another axis: each shard yields a part of every sum.

      >>> mesh = jax.make_mesh((1, jax.device_count()), ('data', 'model'))
      >>> def loss(w, x):
      ...   block = w.shape[0]  # of this shard
      ...   mine = jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index('model') * block, block, 1)
      ...   return jnp.mean((jax.lax.psum(mine @ w, 'model') - 1) ** 2)
      >>> state, step = gz.data_parallel(
      ...     loss, jnp.zeros(16), tx, mesh, 'data', specs=jax.P('model'), printer=None)
      >>> state, value = step(state, jnp.ones((8, 16)))
      >>> float(value)
      1.0
    """
    names = _check_mesh(mesh, axis_name, sharded=specs is not None)
    if not isinstance(tx, optax.GradientTransformation):
        raise TypeError(
            'data_parallel(tx=...) must be an optax transformation, such as optax.chain('
            f'gradzip.error_feedback(...), optax.adam(1e-3)); got {tx!r}.'
        )
    validation.check_key(key)
    validation.check_arrays(params)
    agreement.check_same_shapes(params, mesh)
    layout = shards.layout(params, jax.P() if specs is None else specs, mesh, names)
    text = report.report(tx, layout.shapes, dict(mesh.shape), names)
    if printer is not None and mesh.devices.flat[0].process_index == jax.process_index():
        printer(text)
    has = _Options(aux is not None, key is not None)

    def start(params: PyTree, aux: PyTree) -> Training:
        # A step donates its input, and the caller's arrays must not be donated with it.
        params, aux = jax.tree.map(jnp.copy, (params, aux))
        base = leaves.base_key(key)
        return Training(params, tx.init(params), aux, base, jnp.zeros([], jnp.int32))

    shapes = jax.eval_shape(start, layout.shapes, aux)
    places = state_specs(shapes)._replace(
        params=layout.specs, state=state_specs(shapes.state, params=layout.specs)
    )
    make = jax.shard_map(start, mesh=mesh, in_specs=(layout.specs, jax.P()), out_specs=places)
    worker = _worker(loss, optax.with_extra_args_support(tx), names, has, places)
    placed = [jax.NamedSharding(mesh, spec) for spec in jax.tree.leaves(layout.specs)]
    params = jax.device_put(params, jax.tree.unflatten(jax.tree.structure(params), placed))
    aux = jax.device_put(aux, jax.NamedSharding(mesh, jax.P()))
    return jax.jit(make)(params, aux), Step(worker, mesh, names, places, donate)


class _Options(NamedTuple):
    """What the loss takes and returns beside params, batch and value."""

    aux: bool
    key: bool


def _worker(
    loss: Loss,
    tx: optax.GradientTransformationExtraArgs,
    names: tuple[str, ...],
    has: _Options,
    places: Training,
) -> Callable:
    """Returns the step of one worker: (training, batch) -> (training, value, metrics)."""

    def objective(params: PyTree, batch: PyTree, given: dict[str, Any]) -> tuple[Array, tuple]:
        return _unpacked(loss(params, batch, **given), has)

    def step(training: Training, batch: PyTree) -> tuple[Training, Array, dict]:
        given = {}
        if has.aux:
            given['aux'] = axes.localize(training.aux, names)
        if has.key:
            key = jax.random.fold_in(training.key, training.count)
            given['key'] = jax.random.fold_in(key, axes.worker_index(names))
        local = local_params(training.params, training.state, names)
        gradient = jax.value_and_grad(objective, has_aux=True)
        (value, (aux, metrics)), grads = gradient(local, batch, given)
        shards.check_replicated('What the loss returns', (value, aux, metrics), jax.P(), names)
        value, metrics = collectives.mean((value, metrics), names)
        asked = {'value': value, 'value_fn': lambda params: objective(params, batch, given)[0]}
        with replication.explained():
            updates, state = tx.update(grads, training.state, training.params, **asked)
        updates = replication.settled(tx, grads, training, updates, state, names)
        state = shards.averaged_metrics(state, names)
        shards.check_replicated('The update', updates, places.params, names)
        shards.check_replicated('The state', state, places.state, names)
        params = optax.apply_updates(training.params, updates)
        aux = _agreed(aux, names)
        count = leaves.next_count(training.count)
        return Training(params, state, aux, training.key, count), value, metrics

    return step


def _unpacked(out: Any, has: _Options) -> tuple[Array, tuple[PyTree, dict]]:
    """Returns what a loss returned as (value, (aux, metrics))."""
    value, *rest = out if isinstance(out, tuple) else (out,)
    aux = rest.pop(0) if has.aux and rest else None
    metrics = rest.pop(0) if rest else {}
    if rest or (has.aux and aux is None) or not isinstance(metrics, dict):
        expected = '(loss, aux) or (loss, aux, metrics)' if has.aux else 'loss or (loss, metrics)'
        raise TypeError(
            f'The loss must return {expected}, where metrics is a dict of arrays; got '
            f'{jax.tree.structure(out)}.'
        )
    if jnp.shape(value) != ():
        raise ValueError(
            f'The loss must be a scalar, the mean over its batch; got the shape {jnp.shape(value)}.'
        )
    return value, (aux, metrics)


def _agreed(aux: PyTree, names: tuple[str, ...]) -> PyTree:
    """Returns auxiliary state that is the same on every worker: means of floats, else maxima.

    Each of the two is one collective for all leaves, of which batch normalisation has many.
    """
    parts, tree = jax.tree.flatten(axes.localize(aux, names))
    means = {i: x for i, x in enumerate(parts) if jnp.issubdtype(x.dtype, jnp.inexact)}
    maxima = {i: x for i, x in enumerate(parts) if i not in means}
    agreed = {**collectives.mean(means, names), **collectives.largest(maxima, names)}
    return tree.unflatten([agreed[i] for i in range(len(parts))])


def _check_mesh(mesh: Any, axis_name: AxisName, *, sharded: bool) -> tuple[str, ...]:
    if not isinstance(mesh, jax.sharding.Mesh):
        raise TypeError(f'data_parallel(mesh=...) must be a jax.sharding.Mesh; got {mesh!r}.')
    names = axes.names_of(axis_name)
    missing = [name for name in names if name not in mesh.shape]
    if missing or not names:
        raise ValueError(
            f'data_parallel(axis_name={axis_name!r}): the mesh has the axes {mesh.axis_names}. '
            'Pass the one of the workers, or a tuple of all of them.'
        )
    rest = [name for name in mesh.axis_names if name not in names]
    if rest and not sharded:
        raise ValueError(
            f'data_parallel(axis_name={axis_name!r}) leaves out {rest} of the axes of the mesh. '
            'All must be axes of workers, unless specs= says how params are sharded over the '
            'others (jax.P() if they are not).'
        )
    return names
