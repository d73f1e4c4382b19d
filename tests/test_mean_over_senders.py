"""The mean over the workers that sent an entry, compared with a loop over workers and entries."""

import jax
import numpy as np
import pytest

import gradzip as gz
from tests.mappers import AXIS

pytestmark = pytest.mark.usefixtures('fast_compilation')


def mean_over_senders(sent: np.ndarray) -> np.ndarray:
    """Of rows, one for each worker."""
    mean = np.zeros(sent.shape[1])
    for j in range(sent.shape[1]):
        values = [value for value in sent[:, j] if value != 0]
        mean[j] = sum(values) / len(values) if values else 0
    return mean


@pytest.mark.parametrize('compressor', [gz.TopK(0.3), gz.TopK(0.5) >> gz.ScaledSign()], ids=repr)
def test_each_entry_is_divided_by_the_number_of_its_senders(compressor):
    xs = np.float32(np.random.default_rng(0).normal(size=(5, 40)))
    xs[:, :4] *= 10  # sent by all
    xs[1:, 4] = 0  # sent by one
    xs[0, 4] = 20
    tx = gz.error_feedback(gz.Gather(compressor, mean_over='senders'), AXIS)

    def worker(x):
        update, state = tx.update(x, tx.init(x))
        return update, state.error.rows[0]

    update, error = jax.jit(jax.vmap(worker, out_axes=(None, 0), axis_name=AXIS))(xs)
    sent = xs - error
    senders = (sent != 0).sum(0)
    assert (senders.min(), senders[4], senders.max()) == (0, 1, 5)
    np.testing.assert_allclose(update, mean_over_senders(np.asarray(sent)), rtol=2e-5, atol=2e-6)


def test_it_needs_a_compressor_that_keeps_entries():
    with pytest.raises(TypeError, match='keeps entries'):
        gz.Gather(gz.QSGD(7), mean_over='senders')
    with pytest.raises(ValueError, match="'workers' or 'senders'"):
        gz.Gather(gz.TopK(0.1), mean_over='everyone')


@pytest.mark.parametrize(
    'make',
    [
        lambda scheme: gz.diana(scheme, None, key=0),
        lambda scheme: gz.iag(scheme, None, gz.Constant(1), key=0),
    ],
    ids=['diana', 'iag'],
)
def test_a_method_that_needs_an_unbiased_mean_refuses_it(make):
    scheme = gz.Gather(gz.RandK(0.5), mean_over='senders')
    with pytest.raises(TypeError, match='unbiased'):
        make(scheme).init(np.zeros(8, np.float32))
