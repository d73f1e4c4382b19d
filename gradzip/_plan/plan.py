"""`plan`: schemes and a network in, a ranked table out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import optax

from gradzip import _checks as checks, _quantities as quantities
from gradzip._base import Compressor, PyTree, Reducer, Scheme
from gradzip._compressors.identity import Identity
from gradzip._compressors.qsgd import QSGD
from gradzip._compressors.scaled_sign import ScaledSign
from gradzip._compressors.topk import TopK
from gradzip._feedback.compress import compress
from gradzip._feedback.error_feedback import error_feedback
from gradzip._plan import measure
from gradzip._plan.model import GLOO, RING, Cost
from gradzip._plan.ranking import EXACT, Plan, ranked
from gradzip._reducers.powersgd import PowerSGD
from gradzip._reducers.two_shot import TwoShot
from gradzip._traffic import Collective, collectives_of

AXIS = 'worker'
# One scheme of each kind: sparse, sparse and rounded, rounded (gathered or averaged in two steps),
# one bit an entry, and low rank.
SCHEMES: Mapping[str, Scheme] = {
    'TopK(0.01)': TopK(0.01),
    'TopK(0.01) >> QSGD(7)': TopK(0.01) >> QSGD(7),
    'QSGD(7)': QSGD(7),
    'TwoShot(QSGD(7))': TwoShot(QSGD(7)),
    'ScaledSign()': ScaledSign(),
    'PowerSGD(4)': PowerSGD(4),
}


def plan(
    params: PyTree,
    *,
    workers: int,
    link: float | str,
    schemes: Mapping[str, Scheme] | None = None,
    latency: float | str = 0.0,
    compute: float | str = 0.0,
    host: float | str = math.inf,
    collectives: str | None = None,
    costs: Mapping[str, float | str] | float | str | None = None,
) -> Plan:
    """Ranks schemes by the time of a training step on a network, and says when not to compress.

    A step takes the time to compute the gradient, to encode and decode, and to send:

        step = compute + exchange + sum over collectives of (rounds latency + 8 sent / link)

    Bytes and rounds are counted on the traced exchange of the whole tree, for ring collectives. The
    time of the exchange is measured on the device on which JAX runs, without a network, so call
    this on a machine like those that will train. With the schemes of the default it takes about a
    minute on two CPU cores, most of it to compile. Every scheme is timed under `error_feedback`.
    More than four million parameters are timed on a part of them. How many steps a scheme needs to
    a given loss is not predicted: compare short runs.

    Args:
      params: tree of arrays, or of their shapes and dtypes; gradients have the same.
      workers: how many exchange, at least 2.
      link: the speed of every worker's link, in bits per second or as text ('1Gbit'); 'unlimited'
        too.
      schemes: names to schemes: a Compressor, a Reducer, or a function from a leaf (shape and
        dtype) to one. By default one of each kind. The exact mean is always added.
      latency: the time of a message one way, in seconds or as text ('1ms').
      compute: the time to compute a gradient on one worker, in seconds or as text ('0.3s').
      host: how many bits per second a machine hands to its network stack, if that is a limit.
      collectives: 'ring', where both directions of a link work at the same time, as in NCCL and on
        TPU, and the exact mean of all leaves is one all-reduce; or 'gloo', where the directions
        take turns and every leaf is averaged alone. By default 'gloo' if JAX runs on CPU, else
        'ring'.
      costs: the seconds of an exchange without the network, which are then not measured: for every
        scheme and for 'exact mean', or one number for all. With 0 only the network counts.

    Returns:
      A `Plan`. Its `rows` are the schemes, the fastest first, and for each the speed of the links
      below which it pays. `best` is the row to take, which is 'exact mean' if compression does not
      pay. It prints as a table, and `plan.at('10Gbit')` ranks the same schemes on another link.

    Raises:
      TypeError: a scheme that is none, leaves that are not real floats, or quantities that are
        neither numbers nor text.
      ValueError: params without entries, no schemes, one that is named 'exact mean', fewer than two
        workers, quantities that are none or out of range, or costs for other schemes.
      NotImplementedError: a scheme with a collective in a loop, or one that is neither an
        all-reduce, an all-gather nor an all-to-all. Nothing is measured with costs, so not then.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> found = gz.plan(
      ...     {'w': jnp.zeros((1000, 1000)), 'b': jnp.zeros(1000)},
      ...     workers=8,
      ...     link='1Gbit',
      ...     schemes={
      ...         'sign': gz.ScaledSign(),
      ...         'low rank': lambda p: gz.PowerSGD(4) if p.ndim == 2 else gz.Identity(),
      ...     },
      ...     compute='50ms',
      ...     collectives='ring',
      ...     costs={'exact mean': '1ms', 'sign': '2ms', 'low rank': '4ms'},  # omit it to measure
      ... )
      >>> print(found)
      1,001,000 parameters, 8 workers, link: 1 Gbit/s, 0 ms each way, 50 ms of computing a step
      scheme           sent  exchange   network     step  faster  with delay(1)   pays below
      low rank        63 kB      4 ms  0.504 ms  54.5 ms    1.96          54 ms  18.5 Gbit/s
      sign         878.1 kB      2 ms   7.02 ms    59 ms    1.81          52 ms    49 Gbit/s
      exact mean   7.007 MB      1 ms   56.1 ms   107 ms       1        57.1 ms
      Take low rank: 54.5 ms a step where the exact mean takes 107 ms, 1.96 times faster.
      A biased or coarse message can need more steps to the same loss: compare a short run. It may
      need up to 1.96 times as many and still be there first.
      >>> found.at('100Gbit').best.scheme
      'exact mean'

    Reference: the cost model is alpha-beta, as in Thakur, Rabenseifner, Gropp, 2005, "Optimization
      of collective communication operations in MPICH".
    """
    checks.integer('plan', 'workers', workers, 2)
    bits = quantities.bits_per_second('plan(link=...)', link)
    ends = quantities.bits_per_second('plan(host=...)', host)
    late = quantities.seconds('plan(latency=...)', latency)
    work = quantities.seconds('plan(compute=...)', compute)
    if collectives is None:
        collectives = 'gloo' if jax.default_backend() == 'cpu' else 'ring'
    checks.one_of('plan', 'collectives', collectives, ('ring', 'gloo'))
    chosen = _checked(SCHEMES if schemes is None else schemes)
    likes = jax.tree.map(_like, params)
    entries = sum(math.prod(like.shape) for like in jax.tree.leaves(likes))
    if not entries:
        raise ValueError(
            'plan(params=...) has no entries. Pass a tree of arrays, or of their shapes and '
            f'dtypes; got {params!r}.'
        )
    known = None if costs is None else _given(costs, [EXACT, *chosen])
    exchanges = _exchanges(chosen)
    sent = {name: collectives_of(tx, likes, {AXIS: workers}) for name, tx in exchanges.items()}
    if collectives == 'ring':  # on GPU and TPU XLA joins the all-reduces of all leaves, not on CPU
        whole = sum(collective.bytes for collective in sent[EXACT])
        sent[EXACT] = [Collective('psum', whole, workers)]
    if known is None:
        known = _measured(chosen, jax.tree.leaves(likes), workers)
    found = {name: Cost(known[name], sent[name]) for name in exchanges}
    model = (GLOO if collectives == 'gloo' else RING)._replace(bits=ends)
    return ranked(found, workers, entries, bits, late, work, model)


def _like(leaf: Any) -> jax.ShapeDtypeStruct:
    try:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    except AttributeError:
        raise TypeError(
            'plan(params=...) must be a tree of arrays, or of their shapes and dtypes such as '
            f'jax.eval_shape gives; got a leaf {leaf!r}.'
        ) from None


def _checked(schemes: Any) -> dict[str, Scheme]:
    if not isinstance(schemes, Mapping):
        raise TypeError(
            "plan(schemes=...) must be a mapping of names to schemes, such as {'TopK 1 %': "
            f'gz.TopK(0.01)}}; got {schemes!r}.'
        )
    if not schemes or EXACT in schemes:
        raise ValueError(
            f'plan(schemes=...) must name at least one scheme, and none {EXACT!r}, which is always '
            f'added; got {list(schemes)}.'
        )
    for name, scheme in schemes.items():
        if isinstance(scheme, type) or not (
            isinstance(scheme, Compressor | Reducer) or callable(scheme)
        ):
            raise TypeError(
                f'plan(schemes=...) must hold Compressors, Reducers, or functions from a leaf to '
                f'one; {name!r} is {scheme!r}.'
            )
    return dict(schemes)


def _given(costs: Any, names: list[str]) -> dict[str, float]:
    """Seconds of every scheme, as the caller passed them."""
    if not isinstance(costs, Mapping):
        return dict.fromkeys(names, quantities.seconds('plan(costs=...)', costs))
    if set(costs) != set(names):
        raise ValueError(
            f'plan(costs=...) must hold the seconds of {names}, or be one number for all; got '
            f'{list(costs)}.'
        )
    return {name: quantities.seconds('plan(costs=...)', costs[name]) for name in names}


def _exchanges(schemes: Mapping[str, Scheme]) -> dict[str, optax.GradientTransformation]:
    remembered = {name: error_feedback(s, AXIS, key=0) for name, s in schemes.items()}
    return {EXACT: compress(Identity(), AXIS), **remembered}


def _measured(
    schemes: Mapping[str, Scheme], leaves: list[jax.ShapeDtypeStruct], workers: int
) -> dict[str, float]:
    part = measure.sample(leaves, measure.SAMPLE)
    shortened = {name: measure.scheme_of(scheme, part) for name, scheme in schemes.items()}
    return measure.seconds(_exchanges(shortened), part, AXIS, workers)
