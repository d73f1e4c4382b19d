"""Orbax saves and restores every state bit for bit, under every mapper, and training goes on.

Orbax saves the arrays of a state and nothing else. What a state is made for is static, so it comes
from the abstract state that is passed to `restore`.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import gradzip as gz
from tests.mappers import AXIS, map_step, mesh_of, start, train_step
from tests.test_processes import ROOT, communicate, free_port
from tests.zoo import TRANSFORMATIONS, representatives

pytestmark = pytest.mark.usefixtures('fast_compilation')

WORKERS = 4
CHAINS = representatives(TRANSFORMATIONS)
PARAMS = {'w': jnp.ones((6, 4)), 'b': jnp.ones(5)}
BATCH = np.random.default_rng(0).normal(size=(WORKERS, 3, 6)).astype(np.float32)  # 12 examples


def loss(params, x):
    return jnp.mean((x @ params['w'] - 1) ** 2) + jnp.mean((params['b'] - jnp.mean(x)) ** 2)


def chain(name):
    """An exchange over AXIS, then an optimizer with a state of its own."""
    row = CHAINS[name]
    exchange = [] if row.exchanges else [gz.compress(gz.Identity(), AXIS)]
    return optax.chain(row.scheme(AXIS), *exchange, optax.trace(0.5), optax.scale(-0.1))


def round_trip(folder, state, abstract=None):
    """The state as Orbax restores it."""
    if abstract is None:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / 'state', state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / 'state', abstract)


def data(x):
    """The numbers of an array, also of one of keys."""
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def assert_same(a, b):
    """The same static fields, placement, types and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        assert x.sharding.is_equivalent_to(y.sharding, x.ndim)
        assert np.asarray(data(x)).tobytes() == np.asarray(data(y)).tobytes()


def with_random_bits(state):
    """The state with other contents: every bit of every array is drawn, infinities and NaN too."""
    rng = np.random.default_rng(0)

    def drawn(x):
        numbers = data(x)
        if numbers.dtype == bool:
            new = rng.integers(2, size=numbers.shape).astype(bool)
        else:
            new = np.frombuffer(rng.bytes(numbers.nbytes), numbers.dtype).reshape(numbers.shape)
        if numbers is not x:
            return jax.device_put(jax.random.wrap_key_data(jnp.asarray(new)), x.sharding)
        return jax.device_put(new, x.sharding)

    return jax.tree.map(drawn, state)


def first_state(tx, mapper):
    """The state before the first step, placed as the mapper's outputs are."""
    shapes = jax.eval_shape(tx.init, PARAMS)
    if mapper == 'vmap':
        return start(tx, PARAMS, mapper, WORKERS)[1]
    if mapper == 'pmap':
        copies = jax.tree.map(lambda x: jnp.stack([x] * WORKERS), tx.init(PARAMS))
        return jax.pmap(lambda s: s, devices=jax.devices()[:WORKERS])(copies)
    return placed(gz.resize(tx.init(PARAMS), WORKERS), gz.state_specs(shapes))


def placed(tree, specs):
    """The tree on the mesh of all workers; specs is a prefix of it."""
    shardings = jax.tree.map(lambda spec: jax.NamedSharding(mesh_of(WORKERS), spec), specs)
    return jax.device_put(tree, shardings)


@pytest.mark.parametrize('mapper', ['vmap', 'pmap', 'shard_map'])
@pytest.mark.parametrize('name', CHAINS)
def test_every_bit_returns(name, mapper, tmp_path):
    state = with_random_bits(first_state(chain(name), mapper))
    assert_same(round_trip(tmp_path, state), state)


def continued(step, state, batches, params=None):
    """The losses of a few steps from here, and where they end."""
    values = []
    for batch in batches:
        params, state, value = jax.block_until_ready(step(params, state, batch))
        values.append(value)
    return values, params, state


@pytest.mark.slow
@pytest.mark.parametrize('mapper', ['vmap', 'pmap', 'shard_map'])
@pytest.mark.parametrize('name', CHAINS)
def test_training_goes_on_as_if_it_had_not_stopped(name, mapper, tmp_path):
    tx = chain(name)
    params, state = start(tx, PARAMS, mapper, WORKERS)
    step = map_step(train_step(tx, loss), jax.eval_shape(lambda s: s, state), mapper, WORKERS)
    batch = BATCH.reshape(-1, 6) if mapper == 'shard_map' else BATCH
    _, params, state = continued(step, state, [batch, -batch, batch], params)
    saved = {'params': params, 'state': state}
    restored = round_trip(tmp_path, saved)
    assert_same(restored, saved)
    ends = [continued(step, s['state'], [batch, -batch], s['params']) for s in (saved, restored)]
    assert_same(*ends)


def noisy_loss(params, x, *, aux, key):
    """A loss that draws and that has running statistics."""
    mean = 0.9 * aux['mean'] + 0.1 * jnp.mean(x)
    x = jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0)
    return loss(params, x), {'mean': mean, 'count': aux['count'] + 1}


AUX = {'mean': jnp.zeros([]), 'count': jnp.zeros([], jnp.int32)}


def front_door(tx, workers=WORKERS):
    return gz.data_parallel(
        noisy_loss, PARAMS, tx, mesh_of(workers), AXIS, aux=AUX, key=7, donate=False, printer=None
    )


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=() if name == 'stale and compressed' else pytest.mark.slow)
        for name in CHAINS
    ],
)
def test_the_front_door(name, tmp_path):
    """Parameters, memories, statistics, keys and counts all return."""
    training, step = front_door(chain(name))
    batch = BATCH.reshape(-1, 6)
    for _ in range(3):
        training, _ = step(training, batch)
    fresh, _ = front_door(chain(name))  # as in a new process, which restores into what it made
    restored = round_trip(tmp_path, training, jax.tree.map(ocp.utils.to_shape_dtype_struct, fresh))
    assert_same(restored, training)
    assert_same(*(jax.block_until_ready(step(t, -batch)) for t in (training, restored)))


@pytest.mark.parametrize('name', CHAINS)
def test_the_state_of_nnx(name, tmp_path):
    """`nnx.state` flattens a state into dicts, and keeps what is static in its graph definition."""
    model = nnx.Linear(6, 4, rngs=nnx.Rngs(0))
    graph, state = nnx.split((model, nnx.Optimizer(model, chain(name), wrt=nnx.Param)))
    state = with_random_bits(state)
    restored = round_trip(tmp_path, state)
    assert_same(restored, state)
    assert_same(*(nnx.merge(graph, s)[1].opt_state for s in (state, restored)))


def test_the_train_state_of_linen(tmp_path):
    """Into one that a new process has made, with its own functions as static fields."""

    def made():
        tx = chain('stale and compressed')
        state = TrainState.create(apply_fn=loss, params=PARAMS, tx=tx)
        return gz.distribute(state, mesh_of(WORKERS))

    state, fresh = with_random_bits(made()), made()
    restored = round_trip(tmp_path, state, jax.tree.map(ocp.utils.to_shape_dtype_struct, fresh))
    assert restored.tx is fresh.tx
    assert_same(restored.opt_state, state.opt_state)
    assert_same(restored.params, state.params)


OTHERS = {
    'another feedback': gz.ef21(gz.TopK(0.5), AXIS),
    'another memory': gz.delay(2, AXIS),
    'no axis': gz.error_feedback(gz.TopK(0.5)),
    'a scheme that draws': gz.error_feedback(gz.QSGD(7), AXIS, key=0),
    'a reducer with a state': gz.error_feedback(gz.PowerSGD(1, min_rate=1), AXIS),
}


@pytest.mark.parametrize('name', OTHERS)
def test_a_state_with_other_arrays_is_refused(name, tmp_path):
    """Orbax names the first array that the checkpoint lacks."""
    state = gz.error_feedback(gz.TopK(0.5), AXIS).init(PARAMS)
    with pytest.raises(ValueError, match='Structure mismatch'):
        round_trip(tmp_path, state, jax.eval_shape(OTHERS[name].init, PARAMS))


def test_a_state_with_the_same_arrays_takes_the_words_of_the_new_transformation(tmp_path):
    """The checkpoint does not say which fraction it was made for, so a resumed run may change it.

    This is the only way to mix up two transformations unnoticed. A program that must notice saves
    a description of its scheme beside the state, as `experiments/programs` do.
    """
    before, after = (gz.error_feedback(gz.TopK(k), AXIS) for k in (0.5, 0.1))
    state = with_random_bits(before.init(PARAMS))
    restored = round_trip(tmp_path, state, jax.eval_shape(after.init, PARAMS))
    assert restored.made_for == after.init(PARAMS).made_for != state.made_for
    assert restored.error.axes == (AXIS,)
    for x, y in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize('workers', [pytest.param(2, marks=pytest.mark.slow), 6])
def test_another_number_of_workers(workers, tmp_path):
    """The recipe: restore into `resize` of a new state, resize what was restored, and place it."""
    tx = chain('error_feedback gather topk')
    training, step = front_door(tx)
    batch = BATCH.reshape(-1, 6)
    for _ in range(3):
        training, _ = step(training, batch)
    fresh, step = front_door(tx, workers)
    restored = round_trip(tmp_path, training, gz.resize(fresh, WORKERS))
    resized = gz.resize(restored, workers)
    resumed = jax.device_put(resized, jax.tree.map(lambda x: x.sharding, fresh))
    for name, rows in resumed.state[0].error.rows.items():
        kept = training.state[0].error.rows[name]
        np.testing.assert_allclose(np.mean(rows, 0), np.mean(kept, 0), rtol=1e-6, atol=1e-7)
    resumed, value = step(resumed, batch)
    assert np.isfinite(value)
    assert resumed.count == 4
    assert resumed.aux['count'] == 4


@contextlib.contextmanager
def training(folder, *, processes=1, devices=8, until=16):
    """One or two processes that train, with checkpoints in a folder. None outlives the block."""
    port = str(free_port())
    quick = {'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}  # numbers are judged, not programs
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONWARNINGS': 'default', **quick}
    numbers = str(processes), str(devices), str(until)
    ranks = [
        subprocess.Popen(
            [sys.executable, '-m', 'tests.programs.resumes', str(r), port, *numbers, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        for r in range(processes)
    ]
    try:
        yield ranks
    finally:
        for p in ranks:
            with p:  # waits for its end, and closes its pipes
                p.kill()


def losses_of(ranks):
    """The losses that rank 0 printed, exactly, by their step."""
    outputs = communicate(ranks)
    for p, (_, said) in zip(ranks, outputs, strict=True):
        assert p.returncode == 0, said[-3000:]
    return losses_in(outputs[0][0])


def losses_in(shown):
    return {int(step): value for step, value in re.findall(r'^step (\d+) (\S+)$', shown, re.M)}


@pytest.mark.slow
def test_a_killed_process_resumes_on_the_same_curve(tmp_path):
    """It is killed after step 10; the last checkpoint is from before step 8."""
    with training(tmp_path / 'whole') as ranks:
        whole = losses_of(ranks)
    assert list(whole) == list(range(16))
    with training(tmp_path / 'killed') as ranks:
        for line in ranks[0].stdout:
            if line.startswith('step 10 '):
                ranks[0].send_signal(signal.SIGKILL)
                break
    with training(tmp_path / 'killed') as ranks:
        resumed = losses_of(ranks)
    assert resumed == {step: value for step, value in whole.items() if step >= 8}


@pytest.mark.slow
def test_from_one_process_to_two_and_back(tmp_path):
    """Each run saves what it restored once more, so all bits have been through both."""
    folder = tmp_path / 'run'
    with training(folder, until=4) as ranks:
        losses_of(ranks)
    kept = np.load(folder / 'bits_1.npz')
    for processes in (2, 1):
        with training(folder, processes=processes, until=4) as ranks:  # it has been there: no step
            assert losses_of(ranks) == {}
        for name, bits in np.load(folder / f'bits_{processes}.npz').items():
            np.testing.assert_array_equal(bits, kept[name])
    with training(tmp_path / 'whole', until=12) as ranks:
        whole = losses_of(ranks)
    with training(folder, processes=2, until=8) as ranks:
        curve = losses_of(ranks)
    with training(folder, until=12) as ranks:
        curve |= losses_of(ranks)
    assert list(curve) == list(range(4, 12))
    for step, value in curve.items():
        np.testing.assert_allclose(
            float.fromhex(value), float.fromhex(whole[step]), rtol=1e-5, err_msg=f'step {step}'
        )


@pytest.mark.slow
def test_a_checkpoint_of_another_number_of_workers_is_refused(tmp_path):
    """Orbax says which shapes differ; `gradzip.resize` is for that."""
    with training(tmp_path, until=4) as ranks:
        losses_of(ranks)
    with training(tmp_path, devices=4) as ranks:
        [(_, said)] = communicate(ranks)
    assert ranks[0].returncode != 0
    assert re.search(r'Requested shape: \(4,.*not compatible with the stored shape: \(8,', said)
