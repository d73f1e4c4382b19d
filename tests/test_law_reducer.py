"""Law 2: pmean(sent) == mean, whatever was lost, with and without a mapper.

On devices, the programs that show it are also those whose bytes are counted.
"""

import jax
import numpy as np
import pytest

import gradzip as gz
from gradzip._base import Reduced, like_of
from gradzip._kernels.alike import FEWEST_ALIKE
from tests.mappers import AXIS, P, mesh_of
from tests.wire import check_exchange
from tests.zoo import COMPRESSORS, REDUCER_ROWS, REDUCERS, representatives

pytestmark = pytest.mark.usefixtures('fast_compilation')

WORKERS = 4
LONG_TO_COMPILE = 'gather randk', 'gather weighted bernoulli', 'gather induced'
SHAPES = [(12, 3, 2), (), (0,)]


def arrays(workers: int) -> list[np.ndarray]:
    """Different on every worker, leading axis of workers."""
    rng = np.random.default_rng(0)
    return [np.float32(rng.normal(size=(workers, *shape)) + 0.5) for shape in SHAPES]


def reduced(reducer: gz.Reducer, xs: list, axis_name: str | None) -> tuple[list, list, list, list]:
    """Means, what was sent, next states, and what the reducer says was lost."""
    states = [reducer.init(like_of(x)) for x in xs]
    keys = list(jax.random.split(jax.random.key(1), len(xs)))
    out = reducer.reduce(xs, states, keys, axis_name)
    lost = [r.lost for r in out]
    return [r.mean for r in out], [r.sent for r in out], [r.state for r in out], lost


def simulated(reducer: gz.Reducer, xs: list) -> tuple[list, list, list, list]:
    """Under vmap, which refuses means and states that could differ between workers."""
    mapped = jax.vmap(
        lambda xs: reduced(reducer, xs, AXIS), out_axes=(None, 0, None, 0), axis_name=AXIS
    )
    return jax.jit(mapped)(xs)


def on_devices(reducer: gz.Reducer, xs: list) -> tuple[list, list, list, list]:
    """Under shard_map, which refuses means and states that could differ between workers.

    The compiled program sends the bytes that were predicted.
    """

    def worker(xs):
        means, sents, states, lost = reduced(reducer, [x[0] for x in xs], AXIS)
        return means, [x[None] for x in sents], states, [x[None] for x in lost]

    specs = (P(), P(AXIS), P(), P(AXIS))
    devices = jax.shard_map(worker, mesh=mesh_of(WORKERS), in_specs=P(AXIS), out_specs=specs)
    compiled = jax.jit(devices).lower(xs).compile()
    check_exchange(compiled, reducer, [like_of(x[0]) for x in xs], WORKERS)
    return compiled(xs)


@pytest.mark.parametrize(
    'name', [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG_TO_COMPILE)) for n in REDUCERS]
)
def test_the_mean_is_that_of_what_was_sent_and_the_same_in_the_simulator(name):
    xs = arrays(WORKERS)
    expected, got = simulated(REDUCERS[name], xs), on_devices(REDUCERS[name], xs)
    for means, sents, _, lost in (expected, got):
        for x, mean, sent, left in zip(xs, means, sents, lost, strict=True):
            np.testing.assert_allclose(mean, np.mean(sent, 0), rtol=2e-6, atol=2e-6)
            np.testing.assert_allclose(left, x - sent, atol=2e-6)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    'scheme', ['topk', 'qsgd 4 bits', pytest.param('weighted bernoulli', marks=pytest.mark.slow)]
)
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

    one = Reduced(None, 0, 0, None)
    mapped = jax.vmap(worker, out_axes=([one] * len(xs), [one] * len(xs)), axis_name=AXIS)
    together, alone = jax.jit(mapped)(xs)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize('scheme', ['topk', 'qsgd 4 bits', 'topk >> qsgd'])
def test_with_the_memory_of_another_worker_the_mean_is_no_number(scheme):
    """Where a reducer adds the memory, it is told so, and that worker sends NaN."""
    reducer, x = gz.Gather(COMPRESSORS[scheme]), np.ones((2, 40), np.float32)

    def worker(x, wrong):
        keys, memories = [jax.random.key(0)], [0 * x]
        return reducer.reduce([x], [()], keys, AXIS, memories=memories, misplaced=wrong)[0].mean

    mapped = jax.jit(jax.vmap(worker, out_axes=None, axis_name=AXIS))
    assert np.isfinite(mapped(x, np.zeros(2, bool))).all()
    assert np.isnan(mapped(x, np.array([False, True]))).any()


@pytest.mark.parametrize('name', representatives(REDUCER_ROWS))
def test_one_worker_is_the_same_with_and_without_an_axis(name):
    xs = arrays(1)
    alone = jax.jit(lambda xs: reduced(REDUCERS[name], xs, None))([x[0] for x in xs])
    for a, b in zip(alone[0], simulated(REDUCERS[name], xs)[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
