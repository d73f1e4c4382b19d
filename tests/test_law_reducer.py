"""Law 2: pmean(sent) == mean, whatever was lost, with and without a mapper."""

import jax
import numpy as np
import pytest

import gradzip as gz
from gradzip._base import Reduced, like_of
from gradzip._kernels.alike import FEWEST_ALIKE
from tests.mappers import AXIS, P, mesh_of
from tests.zoo import COMPRESSORS, REDUCERS

CASES = [pytest.param(r, id=name) for name, r in REDUCERS.items()]
SHAPES = [(12, 3, 2), (), (70,), (0,)]


def arrays(workers: int) -> list[jax.Array]:
    """Different on every worker, leading axis of workers."""
    keys = jax.random.split(jax.random.key(0), len(SHAPES))
    return [jax.random.normal(k, (workers, *s)) + 0.5 for k, s in zip(keys, SHAPES, strict=True)]


def reduce(reducer, xs, axis_name):
    out = reduced(reducer, xs, axis_name)
    return [r.mean for r in out], [r.sent for r in out], [r.state for r in out]


def reduced(reducer, xs, axis_name):
    states = [reducer.init(like_of(x)) for x in xs]
    keys = [jax.random.fold_in(jax.random.key(1), i) for i in range(len(xs))]
    return reducer.reduce(xs, states, keys, axis_name)


@pytest.mark.parametrize('reducer', CASES)
def test_the_mean_is_the_mean_of_what_was_sent(reducer):
    def worker(xs):
        out = reduced(reducer, xs, AXIS)
        lost = [r.lost for r in out if r.lost is not None]
        return [r.mean for r in out], [r.sent for r in out], lost

    xs = arrays(3)
    mapped = jax.vmap(worker, out_axes=(None, 0, 0), axis_name=AXIS)
    means, sents, losts = jax.jit(mapped)(xs)
    for mean, sent in zip(means, sents, strict=True):
        np.testing.assert_allclose(mean, sent.mean(0), rtol=2e-6, atol=2e-6)
    if losts:  # a reducer that has what was lost for less than a subtraction
        for x, sent, lost in zip(xs, sents, losts, strict=True):
            np.testing.assert_allclose(lost, x - sent, atol=2e-6)


@pytest.mark.parametrize('reducer', CASES)
def test_devices_give_what_the_simulator_gives(reducer):
    """The same means and the same sent under shard_map, all replicated parts proven so."""
    xs = arrays(8)
    simulated = jax.vmap(
        lambda xs: reduce(reducer, xs, AXIS), out_axes=(None, 0, None), axis_name=AXIS
    )

    def worker(xs):
        mean, sent, state = reduce(reducer, [x[0] for x in xs], AXIS)
        return mean, [x[None] for x in sent], state

    devices = jax.shard_map(
        worker, mesh=mesh_of(8), in_specs=P(AXIS), out_specs=(P(), P(AXIS), P())
    )
    expected, got = jax.jit(simulated)(xs), jax.jit(devices)(xs)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('scheme', ['topk', 'weighted bernoulli', 'qsgd 4 bits'])
def test_arrays_alike_are_each_reduced_as_alone(scheme):
    """Where arrays of one shape share a loop, none takes another's place, key or payload."""
    reducer = gz.Gather(COMPRESSORS[scheme])
    xs = list(jax.random.normal(jax.random.key(0), (2 * FEWEST_ALIKE, 3, 40)))  # (workers, 40) each
    xs.insert(2, jax.random.normal(jax.random.key(5), (3, 7)))
    keys = [jax.random.fold_in(jax.random.key(1), i) for i in range(len(xs))]

    def worker(xs):
        together = reducer.reduce(xs, [()] * len(xs), keys, AXIS)
        alone = [reducer.reduce([x], [()], [k], AXIS)[0] for x, k in zip(xs, keys, strict=True)]
        return together, alone

    one = Reduced(None, 0, None, 0)
    mapped = jax.vmap(worker, out_axes=([one] * len(xs), [one] * len(xs)), axis_name=AXIS)
    together, alone = jax.jit(mapped)(xs)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('reducer', CASES)
def test_one_worker_is_the_same_with_and_without_an_axis(reducer):
    xs = arrays(1)
    alone = jax.jit(lambda xs: reduce(reducer, xs, None))([x[0] for x in xs])
    mapped = jax.jit(
        jax.vmap(lambda xs: reduce(reducer, xs, AXIS), out_axes=(None, 0, None), axis_name=AXIS)
    )(xs)
    for a, b in zip(alone[0], mapped[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
