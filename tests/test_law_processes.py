"""Law 2 on two real processes: the mean of what both sent is the mean that both were given."""

import numpy as np
import pytest

from tests.programs import law_two as program
from tests.test_processes import run_both

TOLERANCE = 2e-6  # of the largest entry, or of 1: float32 sums in another order


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, in units of the largest entry or of 1."""
    assert a.shape == b.shape
    scale = np.max(np.abs(b), initial=1)
    return float(np.max(np.abs(np.float64(a) - np.float64(b)), initial=0) / scale)


def worst(name: str, ranks: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Over all steps and arrays of a reducer, how far each statement is from true."""
    found = {'the same mean on both': 0.0, 'mean of sent': 0.0, 'sent + lost': 0.0}
    for step in range(program.STEPS):
        for i, given in enumerate(zip(*(program.arrays(r, step) for r in (0, 1)), strict=True)):
            means, sents, losts = (
                [rank[f'{name}/{step}/{i}/{part}'] for rank in ranks] for part in program.PARTS
            )
            sents, losts = (np.concatenate(rows) for rows in (sents, losts))  # a row a process
            errors = (
                float(not np.array_equal(*means)),
                apart(means[0], np.mean(sents, axis=0, dtype=np.float64)),
                apart(sents + losts, np.stack(given)),
            )
            found = {key: max(found[key], e) for key, e in zip(found, errors, strict=True)}
    return found


@pytest.mark.slow
def test_the_mean_is_the_mean_of_what_was_sent(tmp_path, monkeypatch):
    """One pair of processes for all reducers: starting and compiling is what takes the time."""
    monkeypatch.setenv('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
    run_both('law_two', str(tmp_path))
    ranks = [dict(np.load(tmp_path / f'{rank}.npz')) for rank in (0, 1)]
    found = {name: worst(name, ranks) for name in program.REDUCERS}
    wrong = {name: errors for name, errors in found.items() if max(errors.values()) > TOLERANCE}
    assert not wrong
