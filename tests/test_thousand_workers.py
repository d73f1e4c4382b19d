"""The simulator of many workers: what it keeps, and what it needs beside."""

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments import thousand_workers
from gradzip._kernels import in_turn


def test_the_state_is_the_ring_and_the_memory_and_little_is_needed_beside():
    """One copy of the ring alone would take 16 arrays of workers x entries."""
    x = thousand_workers.rows_of(64, 1000)
    form, state, temporaries = thousand_workers.gradzip_form(x, thousand_workers.SCHEMES['Ternary'])
    assert state == thousand_workers.BOUND + 1
    assert temporaries <= thousand_workers.TEMPORARIES_BAR
    assert np.isfinite(form.run(2)).all()


@pytest.mark.parametrize('name', thousand_workers.SCHEMES)
def test_the_forms_in_numpy_send_what_the_compressors_do(name):
    """Entries of the right number and sign, the nearest multiple of what was drawn."""
    rng = np.random.default_rng(0)
    v = rng.normal(size=(3, 400)).astype(np.float32)
    sent = thousand_workers.SCHEMES[name].sent(v, rng)
    kept = sent != 0
    if name == 'Ternary':
        assert (np.sign(sent) == np.sign(v) * kept).all()
        np.testing.assert_allclose(np.sum((v - sent) * sent, 1), 0, atol=1e-3)
    else:
        assert (kept.sum(1) == 4).all()
        np.testing.assert_array_equal(sent, np.where(kept, v, 0))
    if name == 'TopK':
        assert (np.abs(v)[kept].reshape(3, 4).min(1) >= np.where(kept, 0, np.abs(v)).max(1)).all()


def test_chunks_of_workers_add_up_to_all_of_them(monkeypatch):
    """With a rest, without one, and one at a time."""
    import jax
    import jax.numpy as jnp

    rows = jnp.arange(7.0 * 5).reshape(7, 5)
    like = jax.ShapeDtypeStruct((5,), rows.dtype)
    for together in (5, 10, 15, 35, 100):
        monkeypatch.setattr(in_turn, 'TOGETHER', together)
        monkeypatch.setattr(in_turn, 'ENTRIES_TOGETHER', together)
        total = in_turn.sum_in_turn(lambda row: 2 * row, (rows,), like)
        np.testing.assert_allclose(total, 2 * rows.sum(0))
        entries = in_turn.add_entries(
            lambda x, values, indices: x.at[indices].add(values),
            lambda row: (row, jnp.arange(5)[::-1]),
            (rows,),
            like,
            5,
        )
        np.testing.assert_allclose(entries, rows.sum(0)[::-1])


def test_chunks_that_vary_over_an_axis(monkeypatch):
    import jax

    from tests.mappers import AXIS, P, mesh_of

    monkeypatch.setattr(in_turn, 'TOGETHER', 10)
    like = jax.ShapeDtypeStruct((5,), np.float32)

    def total(rows):
        return in_turn.sum_in_turn(lambda row: 2 * row, (rows,), like)

    over = jax.shard_map(total, mesh=mesh_of(2), in_specs=P(AXIS), out_specs=P(AXIS))
    assert jax.eval_shape(over, np.zeros((14, 5), np.float32)).shape == (10,)


@pytest.mark.slow
def test_the_command(tmp_path):
    options = ['--quick', '--schemes', 'Ternary', '--out', str(tmp_path)]
    result = CliRunner().invoke(thousand_workers.app, options)
    assert result.exit_code == 0, result.output
    assert 'Bars of Ternary, 1000 x 100' in (tmp_path / 'thousand_workers.txt').read_text()
