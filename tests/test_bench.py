"""The benchmark of the compressors: that it runs, and measures what it says."""

from __future__ import annotations

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import gradzip as gz
from experiments.bench import measures
from experiments.bench.schemes import SCHEMES
from experiments.bench_compressors import app, markdown
from gradzip._plan import timing

CLASSES = {type(c) for c in SCHEMES.values()}


def test_every_compressor_is_measured():
    """Whoever adds one adds it there."""
    public = {
        value
        for value in vars(gz).values()
        if isinstance(value, type)
        and issubclass(value, gz.Compressor)
        and value is not gz.Compressor
    }
    assert public <= CLASSES


@pytest.mark.slow
def test_command_line(tmp_path: Path):
    """A table, rows for the README, and an error that lists the choices."""
    arguments = ('--size', '2000', '--rounds', '2', '--out', str(tmp_path))
    result = CliRunner().invoke(app, [*arguments, '--only', 'ScaledSign()'])
    assert result.exception is None, result.output
    assert 'ScaledSign()' in (tmp_path / 'tables.txt').read_text()
    with (tmp_path / 'compressors.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['compressor'] for row in rows] == ['ScaledSign()', 'TopK(0.01) >> ScaledSign()']
    assert float(rows[0]['bits']) == pytest.approx(1, rel=0.01)
    assert float(rows[0]['error']) == pytest.approx(1 - 2 / np.pi, rel=0.01)
    assert len(markdown(tmp_path / 'compressors.csv')) == 4
    result = CliRunner().invoke(app, [*arguments, '--only', 'nothing'])
    assert result.exit_code == 2
    assert 'TopK(0.01)' in result.output.replace('\n', '')


def test_the_plain_forms_are_the_same_algorithm():
    """What is timed as the alternative computes what it is compared with."""
    size = 1000
    ours = measures.cases(gz.TopK(0.01), size)['step']
    naive = measures.naive_top_k(0.01, size)['step']
    _, (p, state) = ours.run(ours.state, *ours.rest)
    _, (q, error) = naive.run(naive.state, *naive.rest)
    np.testing.assert_allclose(p, q, atol=1e-7)
    np.testing.assert_allclose(state[0].error, error, atol=1e-7)


@pytest.mark.slow
def test_cases_do_what_they_say():
    """Decoding takes from p what was sent; the rest of encoding is what was lost."""
    size, scheme = 300, gz.TopK(0.1)
    cases = measures.cases(scheme, size)
    g, key = measures.gradient(size), jax.random.key(measures.KEY)
    sent = scheme.decode(scheme.encode(g, key), jax.ShapeDtypeStruct((size,), jnp.float32), key)
    run = {name: case.run(case.state, *case.rest)[1] for name, case in cases.items()}
    np.testing.assert_allclose(run['decode'], -sent, atol=1e-7)
    np.testing.assert_allclose(run['remainder'], g - sent, atol=1e-7)
    two = measures.decode_two(scheme, size)
    _, p = two.run(two.state, *two.rest)
    assert int(jnp.sum(p != 0)) <= 60


def test_ratios_are_formed_within_rounds():
    times = {'a': np.array([2.0, 4.0, 60.0]), 'unit': np.array([1.0, 2.0, 30.0, 7.0])}
    assert timing.ratio(times, 'a', 'unit') == 2.0


def test_the_limit_of_a_gaussian_source():
    assert measures.limit(np.array([0.0, 1.0, 2.0])).tolist() == [1.0, 0.25, 0.0625]
