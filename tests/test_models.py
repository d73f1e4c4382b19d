"""The transformer looks back only, starts knowing nothing, and learns; its text is one text."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.models import Model, Size, text

SMALL = Size(layers=2, width=16, heads=2, context=12)


@pytest.mark.slow
def test_a_prediction_depends_on_what_came_before_alone():
    model = Model(SMALL)
    run = nnx.merge(model.structure, model.params)
    windows = jnp.asarray(text().batch(1, SMALL, seed=0))[:, :-1]
    later = windows.at[0, 7].set((windows[0, 7] + 1) % len(text().letters))
    before, after = run(windows), run(later)
    np.testing.assert_array_equal(before[0, :7], after[0, :7])
    assert np.all(np.any(before[0, 7:] != after[0, 7:], axis=-1))


@pytest.mark.slow
def test_it_starts_with_little_more_than_a_guess_and_learns():
    model, tx = Model(SMALL), optax.sgd(0.3, momentum=0.9)  # Adam is not strict about dtypes
    unseen = text().unseen(32, SMALL)
    loss = jax.jit(model.loss)
    start = float(loss(model.params, unseen))
    assert math.log(len(text().letters)) - 0.1 < start < math.log(len(text().letters)) + 1.5

    @jax.jit
    def step(params, state, batch):
        updates, state = tx.update(jax.grad(model.loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    params, state = model.params, tx.init(model.params)
    for i in range(100):
        params, state = step(params, state, text().batch(16, SMALL, seed=i))
    assert float(loss(params, unseen)) < start - 1


@pytest.mark.slow
def test_the_loss_is_the_mean_of_minus_log_probabilities():
    model = Model(SMALL)
    windows = text().batch(3, SMALL, seed=1)
    logits = np.float64(nnx.merge(model.structure, model.params)(jnp.asarray(windows[:, :-1])))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = np.take_along_axis(p, windows[:, 1:, None], -1)
    assert float(model.loss(model.params, windows)) == pytest.approx(-np.log(chosen).mean(), 1e-5)


def test_windows_are_pieces_of_the_text():
    whole = ''.join(text().letters[i] for i in text().train)
    for window in text().batch(5, SMALL, seed=2):
        assert ''.join(text().letters[i] for i in window) in whole
    unseen = ''.join(text().letters[i] for i in text().held_out)
    for window in text().unseen(5, SMALL):
        assert ''.join(text().letters[i] for i in window) in unseen
    assert not np.array_equal(text().batch(4, SMALL, 0), text().batch(4, SMALL, 1))


@pytest.mark.slow
def test_the_default_has_three_million_parameters_and_size_is_a_parameter():
    assert 3e6 < Model(Size()).entries < 3.5e6
    wider = dataclasses.replace(SMALL, width=32)
    assert Model(wider).entries > 2 * Model(SMALL).entries


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'layers': 0}, r'Size\(layers=...\) must be at least 1; got 0'),
        ({'width': 10, 'heads': 4}, 'must be a multiple of the heads'),
    ],
)
def test_sizes_that_are_none(given, message):
    with pytest.raises(ValueError, match=message):
        Size(**given)
