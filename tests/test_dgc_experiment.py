"""The ablation of deep gradient compression runs, and leaves out what it says."""

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

from experiments import dgc


@pytest.mark.slow
def test_the_command_finishes(tmp_path):
    with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
        result = CliRunner().invoke(dgc.app, ['--quick', '--out', str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert 'dgc without warm-up' in (tmp_path / 'dgc.txt').read_text()
    lines = (tmp_path / 'runs.csv').read_text().splitlines()
    assert len(lines) == 1 + len(dgc.QUICK)
    assert all(float(line.split(',')[4]) < 2.3 for line in lines[1:])  # ln 10 is a guess


def test_steps_to_the_target():
    """The mean of twenty losses counts, and a run that diverged never gets there."""
    falls = np.where(np.arange(60) < 30, 1.0, 0.0)
    losses = np.stack([falls, np.full(60, 0.2), np.full(60, np.nan)])
    np.testing.assert_array_equal(dgc.steps_to_target(losses), [48, np.inf, np.inf])
