"""Bad input gets a clear error at construction or trace time: what was given, what is allowed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradzip as gz
from tests.mappers import AXIS

NAN = float('nan')
BAD = [
    (lambda: gz.TopK(0), ValueError, r'TopK\(fraction=...\) must be in \(0, 1\]; got 0\.'),
    (lambda: gz.TopK(-0.1), ValueError, 'got -0.1'),
    (lambda: gz.TopK(2.0), ValueError, 'got 2.0'),
    (lambda: gz.TopK(NAN), ValueError, 'got nan'),
    (lambda: gz.TopK('0.1'), TypeError, "must be a number; got '0.1'"),
    (lambda: gz.TopK(True), TypeError, 'must be a number; got True'),
    (lambda: gz.TopK(0.1, indices='int64'), ValueError, "must be 'packed' or 'plain'; got 'int64'"),
    (lambda: gz.BlockTopK(0, 8), ValueError, r'BlockTopK\(k=...\) must be from 1 to 8; got 0'),
    (lambda: gz.BlockTopK(9, 8), ValueError, 'from 1 to 8; got 9'),
    (lambda: gz.BlockTopK(1, 0), ValueError, r'BlockTopK\(block=...\) must be from 1'),
    (lambda: gz.BlockTopK(0.1, 8), TypeError, 'must be an integer; got 0.1'),
    (lambda: gz.Threshold(0), ValueError, r'Threshold\(relative=...\) must be in \(0, 1\]; got 0'),
    (lambda: gz.Threshold(0.1, capacity=1.5), ValueError, r'Threshold\(capacity=...\) must be in'),
    (lambda: gz.Energy(1.5), ValueError, r'Energy\(fraction=...\) must be in \(0, 1\]; got 1.5'),
    (lambda: gz.Energy(0.5, capacity=NAN), ValueError, r'Energy\(capacity=...\) must be in'),
    (lambda: gz.DCT(0.1, 8), TypeError, r'DCT\(compressor=...\) must be a Compressor; got 0.1'),
    (lambda: gz.DCT(gz.Identity(), 5000), ValueError, 'must be from 1 to 4096; got 5000'),
    (lambda: gz.DCT(gz.Identity(), 8.0), TypeError, 'must be an integer'),
    (lambda: gz.Induced(gz.QSGD(7), gz.QSGD(7)), TypeError, r'first=...\) must state delta'),
    (lambda: gz.Induced(gz.TopK(0.1), gz.TopK(0.1)), TypeError, r'\(second=...\) must state omega'),
    (lambda: gz.Induced(gz.TopK(0.1), 7), TypeError, r'Induced\(second=...\) must be a Compressor'),
    (lambda: gz.RandK(0.0), ValueError, r'RandK\(fraction=...\) must be in \(0, 1\]'),
    (lambda: gz.RandK(None), TypeError, 'must be a number; got None'),
    (lambda: gz.Bernoulli(1.5), ValueError, r'Bernoulli\(fraction=...\) must be in \(0, 1\]'),
    (lambda: gz.QSGD(0), ValueError, r'QSGD\(levels=...\) must be from 1 to 32767; got 0'),
    (lambda: gz.QSGD(1 << 15), ValueError, 'from 1 to 32767'),
    (lambda: gz.QSGD(2.5), TypeError, 'must be an integer; got 2.5'),
    (lambda: gz.QSGD(7, block=0), ValueError, r'block=...\) must be at least 1; got 0'),
    (lambda: gz.QSGD(7, norm='l1'), ValueError, "must be 'max' or 'l2'; got 'l1'"),
    (lambda: gz.Ternary('inf'), ValueError, "must be 'l2' or 'max'; got 'inf'"),
    (lambda: gz.Int(3), ValueError, r'Int\(bits=...\) must be 2, 4 or 8; got 3'),
    (lambda: gz.Int(4, block=0), ValueError, r'block=...\) must be at least 1; got 0'),
    (lambda: gz.Int(4, rounding='up'), ValueError, "must be 'stochastic' or 'nearest'; got 'up'"),
    (lambda: gz.OneBit(block=33), ValueError, r'must be a multiple of 32; got 33'),
    (lambda: gz.every(None, 2), TypeError, r'every\(inner=...\) must be an optax transformation'),
    (lambda: gz.wire_bytes(jax.jit(abs)), TypeError, 'needs a compiled program'),
    (lambda: gz.distribute({}, 8), TypeError, r'must be a jax.sharding.Mesh; got 8'),
    (lambda: gz.Cast('float32'), ValueError, r"must be one of .*'bfloat16'.*; got 'float32'"),
    (lambda: gz.Cast('half-ish'), ValueError, "got 'half-ish'"),
    (lambda: gz.Rotated(gz.Gather(gz.QSGD(7))), TypeError, r'Rotated\(compressor=...\) must be a'),
    (lambda: gz.EDEN(6), ValueError, r'EDEN\(bits=...\) must be from 1 to 5; got 6'),
    (lambda: gz.EDEN(2, scale='best'), ValueError, "must be 'unbiased' or 'nearest'"),
    (lambda: gz.WeightedBernoulli(0), ValueError, r'fraction=...\) must be in \(0, 1\]'),
    (lambda: gz.CAT((0.1,)), ValueError, 'two or more that ascend'),
    (lambda: gz.CAT((0.2, 0.1)), ValueError, 'two or more that ascend'),
    (lambda: gz.CAT(0.1), TypeError, 'must be a tuple'),
    (lambda: gz.CAT((0.1, 0.2), overhead=-1), ValueError, 'at least 0'),
    (lambda: gz.CAT((0.1, 0.2), packet=0), ValueError, 'above 0'),
    (lambda: gz.Schedule((gz.TopK(0.1),), ()), ValueError, 'hold at least two schemes'),
    (lambda: gz.Schedule((gz.TopK(0.1), gz.TopK(0.1)), ()), ValueError, 'one entry less'),
    (
        lambda: gz.Schedule((gz.TopK(0.1), gz.TopK(0.1)), (0,)),
        ValueError,
        r'boundaries=...\) must be from 1',
    ),
    (lambda: gz.Schedule((gz.TopK(0.1), lambda p: p), (5,)), TypeError, 'For a choice by leaf'),
    (
        lambda: gz.error_feedback(gz.Schedule((gz.TopK(0.1), gz.QSGD(7)), (5,))),
        ValueError,
        'pass key=',
    ),
    (lambda: gz.PowerSGD(0), ValueError, r'PowerSGD\(rank=...\) must be at least 1; got 0'),
    (lambda: gz.PowerSGD(1, refresh=0), ValueError, r'PowerSGD\(refresh=...\) must be at least 1'),
    (lambda: gz.ACPSGD(0), ValueError, r'ACPSGD\(rank=...\) must be at least 1; got 0'),
    (lambda: gz.ACPSGD(1, min_rate=0.5), ValueError, r'ACPSGD\(min_rate=...\) must be at least 1'),
    (lambda: gz.PowerSGD(1.5), TypeError, 'must be an integer'),
    (lambda: gz.PowerSGD(1, min_rate=0.5), ValueError, 'must be at least 1; got 0.5'),
    (lambda: gz.PowerSGD(1, min_rate=NAN), ValueError, 'must be at least 1; got nan'),
    (lambda: gz.PowerSGD(1, min_rate='2'), TypeError, "must be a number; got '2'"),
    (lambda: gz.Sum(gz.TopK(0.1)), TypeError, r'Use Gather\(TopK\(fraction=0.1, '),
    (lambda: gz.Sum(0.1), TypeError, 'must be a Compressor; got 0.1'),
    (lambda: gz.TwoShot(gz.Sum(gz.Identity())), TypeError, 'must be a Compressor'),
    (lambda: gz.TwoShot(gz.QSGD(7), 4), TypeError, r'TwoShot\(second=...\) must be a Compressor'),
    (lambda: gz.Gather(gz.Sum(gz.Identity())), TypeError, 'must be a Compressor'),
    (lambda: gz.QSGD(7) >> gz.TopK(0.1), TypeError, 'Start with one that keeps entries'),
    (lambda: gz.TopK(0.1) >> 3, TypeError, 'unsupported operand'),
    (lambda: gz.compress('topk:0.1'), TypeError, "or a function from a leaf to one; got 'topk"),
    (lambda: gz.compress(gz.TopK), TypeError, 'must be a Compressor'),
    (lambda: gz.ef21(None), TypeError, 'got None'),
    (lambda: gz.compress(gz.QSGD(7)), ValueError, r'draws random numbers: pass key='),
    (lambda: gz.error_feedback(gz.Gather(gz.RandK(0.1))), ValueError, 'pass key='),
    (lambda: gz.ef21(gz.TopK(0.1) >> gz.QSGD(7)), ValueError, 'pass key='),
    (lambda: gz.compress(gz.QSGD(7), key=0.5), TypeError, 'key must be an int or a typed key'),
    (lambda: gz.compress(gz.QSGD(7), key=True), TypeError, 'key must be'),
    (lambda: gz.compress(gz.QSGD(7), key=np.zeros(2, np.uint32)), TypeError, 'wrap_key_data'),
    (lambda: gz.compress(gz.TopK(0.1), axis_name=3), TypeError, 'axis_name must be a string'),
    (lambda: gz.compress(gz.TopK(0.1), axis_name=()), TypeError, 'non-empty tuple'),
    (lambda: gz.compress(gz.TopK(0.1), ('a', 'a')), ValueError, 'names an axis twice'),
    (lambda: gz.compress(gz.TopK(0.1), metrics=['lost']), TypeError, 'metrics must map names'),
    (lambda: gz.error_feedback(gz.TopK(0.1), decay=0), ValueError, r'decay=...\) must be in'),
    (lambda: gz.error_feedback(gz.TopK(0.1), drop=1.5), ValueError, r'drop=...\) must be in'),
    (lambda: gz.error_feedback(gz.TopK(0.1), memory_dtype=int), TypeError, "or 'int8'; got"),
    (lambda: gz.error_feedback(gz.TopK(0.1), memory_dtype='half'), TypeError, "got 'half'"),
    (lambda: gz.error_feedback(gz.TopK(0.1), memory_dtype='int8'), ValueError, 'pass key='),
    (lambda: gz.ef21(gz.TopK(0.1), momentum=0.0), ValueError, r'momentum=...\) must be in'),
    (lambda: gz.dgc(gz.TopK(0.1), momentum=1.0), ValueError, r'must be in \[0, 1\); got 1.0'),
    (lambda: gz.dgc(gz.TopK(0.1), clip=0.0), ValueError, r'clip=...\) must be above 0'),
    (lambda: gz.dgc(gz.TopK(0.1), nesterov=1), TypeError, 'must be True or False; got 1'),
    (lambda: gz.econtrol(gz.TopK(0.1), eta=2), ValueError, r'eta=...\) must be in \(0, 1\]; got 2'),
    (lambda: gz.diana(gz.QSGD(7), alpha=0, key=0), ValueError, r'alpha=...\) must be in'),
    (lambda: init(gz.diana(gz.TopK(0.1))), TypeError, r'diana needs an unbiased .*Induced'),
    (lambda: init(gz.diana(gz.PowerSGD(1))), TypeError, 'alone or under Gather or Sum'),
    (lambda: init(gz.marina(gz.TopK(0.1), key=0)), TypeError, 'marina needs an unbiased'),
    (lambda: gz.marina(gz.Identity(), key=None), ValueError, 'throws a coin .*pass key='),
    (
        lambda: gz.marina(gz.Identity(), probability=1.5, key=0),
        ValueError,
        r'probability=...\) must be in',
    ),
    (lambda: gz.shared_momentum(gz.TopK(0.1), 0.9), TypeError, 'must be an optax transformation'),
    (lambda: gz.shared_momentum(optax.identity(), 1.1), ValueError, r'decay=...\) must be in'),
    (lambda: gz.scale_by_frozen_adam(0), ValueError, r'warmup=...\) must be at least 1; got 0'),
    (lambda: gz.scale_by_frozen_adam(5, b2=1.0), ValueError, r'b2=...\) must be in \[0, 1\)'),
    (lambda: gz.scale_by_frozen_adam(5, eps=0), ValueError, r'eps=...\) must be above 0'),
    (lambda: gz.delay(-1), ValueError, r'delay\(model=...\) must be at least 0; got -1'),
    (lambda: gz.delay(1.5), TypeError, 'must be an integer; got 1.5'),
    (lambda: gz.delay(True), TypeError, 'must be an integer; got True'),
    (lambda: gz.Constant(-2), ValueError, r'Constant\(tau=...\) must be at least 0'),
    (lambda: gz.Uniform('3'), TypeError, 'must be an integer'),
    (lambda: gz.delay(gz.Uniform(3)), ValueError, 'draws random delays: pass key='),
    (lambda: gz.Uniform(3, 2), ValueError, r'Uniform\(high=...\) must be at least 3; got 2'),
    (lambda: gz.Cyclic(0), ValueError, r'Cyclic\(workers=...\) must be at least 1'),
    (lambda: gz.Burst(0), ValueError, r'Burst\(period=...\) must be at least 1; got 0'),
    (lambda: gz.Fixed(()), ValueError, 'must hold a delay for each worker; got none'),
    (lambda: gz.Fixed((0, -1)), ValueError, r'Fixed\(delays=...\) must be at least 0; got -1'),
    (lambda: gz.Fixed((0, 1.0)), TypeError, 'must be an integer; got 1.0'),
    (lambda: gz.Fixed('12'), TypeError, "must be a tuple of integers, .* got '12'"),
    (lambda: gz.Geometric(0.0, bound=3), ValueError, r'Geometric\(p=...\) must be in \(0, 1\]'),
    (lambda: gz.Geometric(0.5, bound=np.inf), TypeError, 'must be an integer; got inf'),
    (lambda: gz.Straggler(1.5, 3), ValueError, r'Straggler\(probability=...\) must be in \(0, 1'),
    (lambda: gz.Straggler(0.5, -3), ValueError, r'Straggler\(slow=...\) must be at least 0'),
    (lambda: gz.Trace([1, 2]), ValueError, r'a row for each step and a column .* shape \(2,\)'),
    (lambda: gz.Trace(np.zeros((0, 3), int)), ValueError, r'got shape \(0, 3\)'),
    (lambda: gz.Trace([[0.5]]), TypeError, 'must be an array of integers; got .* float64'),
    (lambda: gz.Trace([[0, -2]]), ValueError, 'must hold steps from 0 to .* from -2 to 0'),
    (lambda: gz.Trace([[0, 2]]).check_workers(3), ValueError, 'of 2 workers, but there are 3'),
    (lambda: gz.Fixed((0, 2)).check_workers(3), ValueError, 'of 2 workers, but there are 3'),
    (lambda: gz.delay(1, memory_dtype='half'), TypeError, "or 'int8'; got 'half'"),
    (lambda: gz.delay(1, memory_dtype='int8'), ValueError, 'at random: pass key='),
    (lambda: gz.stale_params(-1), ValueError, r'stale_params\(model=...\) must be at least 0'),
    (lambda: gz.compensate(gz.Uniform(3)), ValueError, 'draws random delays: pass key='),
    (lambda: gz.compensate(1, strength=-1), ValueError, r'strength=...\) must be at least 0'),
    (lambda: gz.compensate(1, strength='1'), TypeError, 'must be a number'),
    (lambda: gz.compensate(1, decay=1.0), ValueError, r'decay=...\) must be in \[0, 1\), or None'),
    (lambda: gz.scale_by_delay('inverse', 1), TypeError, 'must be a rule of gradzip.delay_rules'),
    (lambda: gz.scale_by_delay(gz.delay_rules.Inverse(), 1, own=1), TypeError, 'True or False'),
    (
        lambda: gz.scale_by_delay(gz.delay_rules.Adaptive2(), 1, own=True),
        ValueError,
        'leave out own=True',
    ),
    (lambda: gz.delay_rules.Concurrency(0), ValueError, r'workers=...\) must be at least 1'),
    (lambda: gz.delay_rules.CutOff(-1), ValueError, r'longest=...\) must be at least 0'),
    (lambda: gz.delay_rules.Adaptive1(0), ValueError, r'share=...\) must be in \(0, 1\]'),
    (lambda: gz.take_turns(None, 2), TypeError, 'must be an optax transformation'),
    (lambda: gz.fresh_batches(None, 2), TypeError, 'must be an optax transformation'),
    (lambda: gz.fresh_batches(optax.identity(), 0), ValueError, r'size=...\) must be at least 1'),
    (lambda: gz.take_turns(optax.identity(), 0), ValueError, r'workers=...\) must be at least 1'),
    (lambda: gz.iag(gz.QSGD(7), AXIS, 4, key=0), TypeError, 'must be a Delay, such as Cyclic'),
    (lambda: gz.iag(gz.Identity(), AXIS, gz.Uniform(2)), ValueError, 'draws random arrivals'),
    (lambda: init(gz.iag(gz.TopK(0.1), AXIS, gz.Cyclic(2))), TypeError, 'one that states omega'),
    (lambda: init(gz.iag(gz.PowerSGD(1), AXIS, gz.Cyclic(2))), TypeError, 'sends it by Gather'),
    (lambda: gz.every(optax.sgd(1.0), 0), ValueError, r'every\(k=...\) must be at least 1'),
    (lambda: gz.every(optax.sgd(1.0), 2.0), TypeError, 'must be an integer'),
    (lambda: gz.participate(0, AXIS, key=0), ValueError, r'count=...\) must be at least 1'),
    (lambda: gz.participate(1, AXIS, key=None), ValueError, 'pass key='),
    (lambda: gz.participate(1, None, key=0), TypeError, 'must name the axis of workers'),
    (lambda: gz.per_worker(optax.trace(0.9), None), TypeError, 'must name the axis of workers'),
    (lambda: gz.hierarchical(optax.identity(), 'gpu', 0), ValueError, 'must be at least 1'),
    (lambda: gz.hierarchical(optax.identity(), ('a', 'b'), 2), TypeError, 'must be a string'),
]


@pytest.mark.parametrize(('make', 'kind', 'message'), BAD, ids=lambda x: None)
def test_at_construction(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def init(tx, params=None):
    return tx.init(jnp.zeros(3) if params is None else params)


def test_marina_without_the_gradient_at_the_last_point():
    tx = gz.marina(gz.QSGD(7), key=0)
    with pytest.raises(ValueError, match=r'previous_grads=...\). gradzip.marina_grads computes'):
        tx.update(jnp.zeros(3), init(tx))
    with pytest.raises(ValueError, match=r'shape \(4,\), but its parameter has shape \(3,\)'):
        tx.update(jnp.zeros(3), init(tx), previous_grads=jnp.zeros(4))


def test_what_only_update_can_miss():
    tx = gz.compensate(2)
    with pytest.raises(ValueError, match=r'call tx.update\(grads, state, params\)'):
        tx.update(jnp.zeros(3), init(tx))
    tx = gz.fresh_batches(optax.trace(0.9), 2)
    with pytest.raises(ValueError, match=r'params, delay=...\)'):
        tx.update(jnp.zeros(3), init(tx))
    tx = gz.take_turns(optax.trace(0.9), 2)
    with pytest.raises(ValueError, match=r'params, worker=...\)'):
        tx.update(jnp.zeros(3), init(tx))


def test_a_key_inside_per_worker():
    noisy = optax.add_noise(0.1, 0.5, key=jax.random.key(0))
    with pytest.raises(ValueError, match='same on all workers'):
        init(gz.per_worker(noisy, AXIS))
    with pytest.raises(ValueError, match='holds a key at'):
        init(gz.per_worker(gz.compress(gz.QSGD(7), key=0), AXIS))


@pytest.mark.parametrize(
    'tx', [gz.compress(gz.TopK(0.5)), gz.error_feedback(gz.TopK(0.5)), gz.delay(1)]
)
def test_integer_and_complex_leaves(tx):
    with pytest.raises(TypeError, match=r"leaf at \"\['n'\]\" has dtype int32; only real floating"):
        init(tx, {'n': jnp.zeros(3, jnp.int32)})
    with pytest.raises(TypeError, match='complex64'):
        init(tx, jnp.zeros(3, jnp.complex64))
    state = init(tx)
    with pytest.raises(TypeError, match=r'the only leaf.*int32'):
        tx.update(jnp.zeros(3, jnp.int32), state, jnp.zeros(3))


EXCHANGES = {
    'compress': gz.compress(gz.TopK(0.5)),
    'error_feedback': gz.error_feedback(gz.TopK(0.5)),
    'ef21': gz.ef21(gz.TopK(0.5)),
    'delay': gz.delay(1),
    'every': gz.every(optax.sgd(1.0), 2),
}


@pytest.mark.parametrize('tx', EXCHANGES.values(), ids=EXCHANGES)
def test_gradients_of_another_tree_or_shape(tx):
    params = {'w': jnp.zeros(3), 'b': jnp.zeros([])}
    state = tx.init(params)
    with pytest.raises(ValueError, match='another tree than the params'):
        tx.update({'w': jnp.zeros(3)}, state, params)
    with pytest.raises(
        ValueError, match=r"\['w'\].* has shape \(4,\), but its parameter has shape \(3,\)"
    ):
        tx.update({'w': jnp.zeros(4), 'b': jnp.zeros([])}, state, params)


def test_a_scheme_that_gives_nonsense_for_a_leaf():
    tx = gz.compress(lambda leaf: 0.1)
    with pytest.raises(TypeError, match=re.escape('for a leaf of shape (3,) and dtype float32')):
        init(tx)


def test_a_random_scheme_chosen_by_leaf_needs_a_key_too():
    with pytest.raises(ValueError, match='pass key='):
        init(gz.compress(lambda leaf: gz.QSGD(7)))


def test_a_compressor_without_constants_cannot_feed_a_memory():
    import dataclasses

    @dataclasses.dataclass(frozen=True)
    class Half(gz.Compressor):
        def encode(self, x, key):
            return gz.Identity().encode(x / 2, key)

        def decode(self, payload, like, key):
            return payload.values

    with pytest.raises(TypeError, match='states neither delta nor omega'):
        init(gz.error_feedback(Half()))
    assert init(gz.compress(Half())) is not None


def test_a_state_given_whole_to_one_worker():
    tx = gz.error_feedback(gz.TopK(0.5), AXIS)
    state = jax.tree.map(lambda x: jnp.stack([x] * 2), tx.init(jnp.zeros(3)))
    rows = gz.PerWorker(state.error.rows[:, 0], (AXIS,))  # as shard_map keeps them
    state = tx.init(jnp.zeros(3))._replace(error=rows)
    step = jax.vmap(lambda g: tx.update(g, state)[0], axis_name=AXIS)
    with pytest.raises(ValueError, match=r'has 2 rows where one worker runs.*state_specs'):
        step(jnp.zeros((2, 3)))


def test_more_participants_than_workers():
    tx = gz.participate(4, AXIS, key=0)
    step = jax.vmap(lambda g: tx.update(g, tx.init(g))[0], axis_name=AXIS)
    with pytest.raises(ValueError, match=r'which has 3 workers: count must be at most 3'):
        step(jnp.zeros((3, 2)))


def test_another_local_size():
    tx = gz.hierarchical(gz.compress(gz.Identity()), 'gpu', local_size=4)
    step = jax.vmap(lambda g: tx.update(g, tx.init(g))[0], axis_name='gpu')
    with pytest.raises(ValueError, match=r"axis 'gpu' has 2 workers: pass local_size=2"):
        step(jnp.zeros((2, 8)))


def test_a_leaf_too_large_for_its_indices():
    with pytest.raises(ValueError, match='split the parameter'):
        gz.payload_bytes(gz.TopK(0.1), jax.ShapeDtypeStruct((1 << 31,), jnp.float32))
