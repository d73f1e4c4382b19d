"""Every optimizer of optax behind one exchange, and every exchange before one optimizer.

Each trains a small Flax model on two devices under shard_map and compiles its step once. Without
an axis, where no optimizer can tell that there is an exchange, one stands for all.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

import gradzip as gz
from tests.mappers import AXIS, P, mesh_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('fast_compilation', 'promotion_of_users')]

COMPILED = []  # an entry for every program that XLA has compiled since this module was imported
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: COMPILED.append(seconds) if 'backend_compile' in event else None
)

STEPS, WORKERS = 12, 2
RATES = {'adadelta': 30.0, 'noisy_sgd': 0.1, 'adafactor': 0.1, 'lars': 0.1, 'fromage': 0.1}
# lbfgs and polyak_sgd want the loss in each update, so they stand behind `data_parallel`.
OPTIMIZERS = [
    *('adabelief', 'adadelta', 'adafactor', 'adagrad', 'adam', 'adamax', 'adamaxw', 'adamw'),
    *('adan', 'amsgrad', 'fromage', 'lamb', 'lars', 'lion', 'nadam', 'nadamw', 'noisy_sgd'),
    *('novograd', 'optimistic_adam_v2', 'optimistic_gradient_descent', 'radam', 'rmsprop'),
    *('rprop', 'sgd', 'sign_sgd', 'signum', 'sm3', 'yogi'),
]
TOPK, SIGN, QSGD = gz.TopK(0.3), gz.ScaledSign(), gz.QSGD(7, block=16)
EXCHANGES = {
    'compress': gz.compress,
    'error_feedback': gz.error_feedback,
    'ef21': gz.ef21,
    'ef21 with momentum': lambda scheme, axis, key: gz.ef21(scheme, axis, momentum=0.5, key=key),
    'econtrol': lambda scheme, axis, key: gz.econtrol(scheme, axis, eta=0.3, key=key),
    'dgc': lambda scheme, axis, key: gz.dgc(scheme, axis, momentum=0.5, key=key),
    'shared momentum': lambda scheme, axis, key: gz.shared_momentum(
        gz.error_feedback(scheme, axis, key=key), 0.5
    ),
}


@pytest.fixture(scope='module')
def promotion_of_users():
    """Optimizers and Flax count on the promotion of dtypes and ranks that other tests forbid."""
    with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
        yield


MODEL = linen.Dense(3)


def problem():
    """A model's first params, and inputs and targets for all workers."""
    rng = np.random.default_rng(0)
    x = np.float32(rng.normal(size=(WORKERS, 16, 4)))
    return MODEL.init(jax.random.key(0), x[0]), (x, np.sin(x[..., :3] + x[..., 1:]))


def loss_of(params, batch):
    x, y = batch
    return jnp.mean((MODEL.apply(params, x) - y) ** 2)


def trained(tx, axis):
    """The loss before every step."""
    params, batch = problem()

    def step(params, state, batch):
        own = params if axis is None else gz.localize(params, axis)
        value, grads = jax.value_and_grad(loss_of)(own, jax.tree.map(lambda x: x[0], batch))
        updates, state = tx.update(grads, state, params)
        value = value if axis is None else jax.lax.pmean(value, axis)
        return optax.apply_updates(params, updates), state, value

    state = tx.init(params)
    if axis is not None:
        specs = gz.state_specs(jax.eval_shape(tx.init, params))
        mesh = mesh_of(WORKERS)
        init = jax.shard_map(tx.init, mesh=mesh, in_specs=P(), out_specs=specs)
        step = jax.shard_map(
            step, mesh=mesh, in_specs=(P(), specs, P(axis)), out_specs=(P(), specs, P())
        )
        params = jax.device_put(params, jax.NamedSharding(mesh, P()))
        batch = jax.device_put(batch, jax.NamedSharding(mesh, P(axis)))
        state = jax.jit(init)(params)
    step, losses = jax.jit(step), []
    for _ in range(STEPS):
        params, state, value = step(params, state, batch)
        losses.append(float(value))
        if len(losses) == 1:
            compiled = len(COMPILED)
    assert compiled, 'the event that counts has another name in this version of JAX'
    assert len(COMPILED) == compiled, 'no step after the first compiles anything'
    return losses


def check(tx, axis=AXIS):
    losses = trained(tx, axis)
    assert losses[-1] < 0.98 * losses[0], losses


def optimizer_of(name):
    options = {'key': 0, 'eta': 0.01, 'gamma': 0.55} if name == 'noisy_sgd' else {}
    return getattr(optax, name)(RATES.get(name, 0.02), **options)


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_every_optimizer_of_optax(name):
    check(optax.chain(gz.error_feedback(TOPK, AXIS), optimizer_of(name)))


def test_an_optimizer_without_an_axis():
    check(optax.chain(gz.error_feedback(TOPK), optimizer_of('adamw')), None)


@pytest.mark.parametrize('scheme', [TOPK, SIGN, QSGD], ids=['topk', 'sign', 'qsgd'])
@pytest.mark.parametrize('name', EXCHANGES)
def test_every_exchange(name, scheme):
    check(optax.chain(EXCHANGES[name](scheme, AXIS, key=0), optax.adam(0.02)))
