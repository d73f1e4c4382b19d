"""Several steps of each worker's own optimizer between two exchanges, as DiLoCo has them.

The params stay what all workers have in common. A worker's own params differ from them by an
offset, which is part of the state. Every `sync_every` steps the workers exchange their offsets, an
outer optimizer turns the mean into an update of the params, and the offsets start again from zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import _axes as axes, _checks as checks, _leaves as leaves, _validation as validation
from gradzip._base import Array, AxisName, PyTree, State
from gradzip._conditional import zeros
from gradzip._fragments import Fragments, due
from gradzip._wrappers import per_worker

Transformation = optax.GradientTransformation
WithExtraArgs = optax.GradientTransformationExtraArgs


class LocalStepsState(NamedTuple):
    """`offset` and `inner` are each worker's own, the rest is the same on every worker."""

    count: Array  # i32[], the number of steps, which goes round after the first `sync_every`
    offset: PyTree  # own params minus common params; PerWorker with an axis
    inner: PyTree  # of the workers' optimizer; PerWorker with an axis
    exchange: tuple[PyTree, ...]  # of each fragment
    outer: tuple[PyTree, ...]  # of each fragment
    pending: PyTree  # updates that were computed and not applied yet; None without a delay
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def local_steps(
    inner: Transformation,
    exchange: Transformation,
    outer: Transformation,
    axis_name: AxisName | None = None,
    *,
    sync_every: int,
    fragments: int = 1,
    delay: int = 0,
    blend: float = 0.0,
) -> WithExtraArgs:
    """Lets every worker take steps of its own, and exchanges what they add up to.

    In each step, `inner` turns the worker's gradient into a step of the worker's own params

        x_w = params + offset_w,   at which gradients must be taken: `gradzip.local_params`.

    After `sync_every` steps, the pseudo-gradients params - x_w = -offset_w pass through `exchange`,
    `outer` turns the result into an update of the params, and x_w becomes the new params. In all
    other steps the updates are zero and nothing is communicated. Params must be changed by these
    updates alone.

    Settings that are known by names, with AdamW inside: post-local SGD has `outer=optax.sgd(1.0)`;
    DiLoCo `optax.sgd(0.7, momentum=0.9, nesterov=True)` and an exact exchange,
    `gz.compress(gz.Identity(), axis)`; SparseLoCo
    `gz.error_feedback(gz.BlockTopK(64, 4096) >> gz.QSGD(1), axis, decay=0.95)` and
    `outer=optax.sgd(0.7)` without momentum; MuLoCo has `optax.contrib.muon` inside.

    With `fragments`, as in Streaming DiLoCo, the leaves are dealt out to that many fragments of
    about the same size, which take turns: one is exchanged every `sync_every / fragments` steps, so
    that the peak of the traffic is so many times lower. With `delay`, the result of an exchange is
    applied that many steps later, while the workers go on. A runtime that overlaps steps may use
    that time for the exchange; under a single compiled step it only simulates the delay. With
    `blend`, a worker keeps that share of the distance between its own params and the new common
    ones, in place of starting again from these.

    Args:
      inner: the optimizer of each worker, such as `optax.adamw(3e-4)`, without random draws.
      exchange: a transformation that averages over the workers, such as `error_feedback`.
      outer: the optimizer of the common params. A step of -1 times what it receives means to move
        to the mean of the workers' own params.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker.
      sync_every: the number of steps between two exchanges of the same leaf, at least 1; a multiple
        of fragments.
      fragments: the number of groups of leaves that are exchanged in turn, at least 1.
      delay: the number of steps from an exchange to its effect, from 0 to
        `sync_every / fragments - 1`.
      blend: the share of its own distance that a worker keeps, in [0, 1).

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      TypeError: an argument of another kind; a leaf that is not a real float.
      ValueError: numbers outside of the ranges above, or more fragments than leaves; at trace time,
        gradients that are the same on every worker, differ between workers where there is no axis,
        or are of another tree or shape than params.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.local_steps(optax.sgd(0.5), optax.identity(), optax.sgd(1.0), sync_every=2)
      >>> params = jnp.float32(1.0)
      >>> state = tx.init(params)
      >>> for _ in range(2):
      ...   gradient = gz.local_params(params, state)  # of x^2 / 2
      ...   update, state = tx.update(gradient, state, params)
      ...   print(update)
      0.0
      -0.75

    Reference: Douillard et al., arXiv 2311.08105, algorithm 1 (DiLoCo); arXiv 2501.18512 (Streaming
    DiLoCo: fragments, delay and blend); Lin et al., arXiv 1808.07217 (post-local SGD); Sarfi et
    al., arXiv 2508.15706 (SparseLoCo); Therien et al., arXiv 2505.23725 (MuLoCo).
    """
    for name, part in (('inner', inner), ('exchange', exchange), ('outer', outer)):
        validation.check_transformation('local_steps', name, part)
    axes.names_of(axis_name)
    for name, value in (('sync_every', sync_every), ('fragments', fragments)):
        checks.integer('local_steps', name, value, 1)
    if sync_every % fragments:
        raise ValueError(
            f'local_steps(sync_every={sync_every}, fragments={fragments}): the fragments are '
            'exchanged in turn, so sync_every must be a multiple of them.'
        )
    spacing = sync_every // fragments
    checks.integer('local_steps', 'delay', delay, 0, spacing - 1)
    checks.below_one('local_steps', 'blend', blend)
    rhythm = f'sync_every={sync_every}, fragments={fragments}, delay={delay}, blend={blend}'
    made_for = validation.made_for('local_steps', rhythm, axis_name)
    if axis_name is not None:
        inner = per_worker(inner, axis_name)
    inner = optax.with_extra_args_support(inner)
    sync = Fragments(exchange, optax.with_extra_args_support(outer), fragments)

    def init(params: PyTree) -> LocalStepsState:
        validation.check_real(params)
        offset = leaves.zeros_in_memory(params)
        parts = sync.parts(offset)
        return LocalStepsState(
            count=jnp.zeros([], jnp.int32),
            offset=axes.new_local(offset, axis_name),
            inner=inner.init(params),
            exchange=tuple(exchange.init(part) for part in parts),
            outer=tuple(outer.init(part) for part in sync.parts(params)),
            pending=jax.tree.map(jnp.zeros_like, params) if delay else None,
            made_for=made_for,
        )

    def update(
        updates: PyTree, state: State, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, LocalStepsState]:
        validation.check_state(state, LocalStepsState, made_for)
        if params is None:
            raise ValueError('local_steps needs the params: call update(gradients, state, params).')
        gradients, offset = validation.received(updates, state.offset, axis_name)
        own = axes.moved(params, offset)
        steps, inner_state = inner.update(gradients, state.inner, own, **extra)
        offset = optax.tree.add(offset, leaves.cast_like(steps, offset))
        count = state.count + 1
        part = due(count, spacing, fragments)
        fresh, states = sync.run(part, offset, params, (state.exchange, state.outer), extra)
        fresh = leaves.cast_like(fresh, updates)
        if delay:
            applied = due(count - delay, spacing, fragments)
            new = sync.select(applied, state.pending, zeros(fresh))
            pending = sync.select(part, fresh, state.pending)
        else:
            applied, new, pending = part, fresh, None
        kept = jax.tree.map(lambda x, u: blend * (x - u.astype(x.dtype)), offset, new)
        offset = axes.wrap_local(sync.select(applied, kept, offset), axis_name)
        count = jnp.where(count == 2 * sync_every, sync_every, count)
        exchanged, stepped = states
        return new, LocalStepsState(
            count, offset, inner_state, exchanged, stepped, pending, made_for
        )

    return WithExtraArgs(init, update)
