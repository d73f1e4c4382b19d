"""The comparison of steps: what it measures, how it searches, and how it goes on."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import gradzip as gz
from experiments.memory.__main__ import QUICK, app
from experiments.memory.methods import EXACT, METHODS
from experiments.memory.runs import EVERY, SMOOTH, Run, Setting, Trainer, compare

pytestmark = pytest.mark.usefixtures('promotion_of_users')
LOCAL = '4 local steps, TopK 1.3 % >> sign'
H = 100
SETTING = Setting(size=QUICK.size, workers=2, examples=1, horizon=H)


@pytest.fixture(scope='module')
def promotion_of_users():
    """Adam and Flax count on the promotion of dtypes and ranks that other tests forbid."""
    with jax.numpy_dtype_promotion('standard'), jax.numpy_rank_promotion('allow'):
        yield


def curve_of(speed: float) -> list[float]:
    """A loss that halves every 20 / speed steps."""
    return [2.0 ** (-speed * EVERY * (i + 1) / 20) for i in range(2 * H // EVERY)]


def test_steps_are_counted_to_the_smoothed_loss():
    slow, fast = (Run('m', 1.0, 0, curve_of(speed)) for speed in (1.0, 2.0))
    target = slow.after(H)
    assert slow.reached(target) == H
    assert np.isclose(target, np.mean(curve_of(1.0)[H // EVERY - SMOOTH : H // EVERY]))
    assert fast.reached(target) in (H // 2, H // 2 + EVERY, H // 2 + 2 * EVERY)
    assert Run('m', 1.0, 0, [1.0, 1.0, 1.0, 1.0]).reached(0.5) is None
    assert Run('m', 1.0, 0, [1.0, np.nan]).after(H) == np.inf  # it diverged


class Curves(Trainer):
    """Runs that take no time: the nearer the rate is to 0.004, the faster."""

    def run(self, method, rate, seed, target):
        del target
        speed = 1 / (1 + np.log(rate / 0.004) ** 2)
        self.runs.append(Run(method.name, rate, seed, curve_of(speed)))
        return self.runs[-1]


@pytest.mark.parametrize('start', [0.001, 0.004, 0.016])
def test_the_search_walks_to_the_best_rate(start, tmp_path):
    trainer = Curves(SETTING, tmp_path / 'runs.json')
    best = trainer.tuned(METHODS[0], start, 0, None)
    assert np.isclose(best.rate, 0.004)
    assert len(trainer.runs) == (3 if start == 0.004 else 6 if start < 0.004 else 7)


def test_without_a_search_every_method_has_the_given_rate(tmp_path):
    trainer = Curves(SETTING, tmp_path / 'runs.json')
    chosen = [method for method in METHODS if method.name in (EXACT, LOCAL)]
    found = compare(trainer, chosen, 0.002, 2, search=False)
    assert [run.rate for run in found[EXACT]] == [0.002, 0.002]
    local = chosen[1].factor * 0.002
    assert [run.rate for run in found[LOCAL]] == [local, local] != [0.002, 0.002]
    assert len(trainer.runs) == 4


@pytest.mark.slow
def test_bits_are_those_of_the_chain():
    """An exchange in every fourth step counts a quarter; float32 counts 32 bits."""
    params = np.zeros((1000, 1000), np.float32)
    bits = {m.name: m.bits(params, 8) for m in METHODS if m.name in (EXACT, LOCAL)}
    assert bits[EXACT] == 32
    scheme = gz.TopK(0.013) >> gz.ScaledSign()
    sent = 8 * gz.payload_bytes(scheme, params) / 1_000_000
    assert np.isclose(bits[LOCAL], sent / 4)


@pytest.mark.slow
def test_the_command_finishes_and_does_not_run_anything_twice(tmp_path):
    arguments = ['--quick', '--method', 'TopK 4 % >> sign, comp', '--out', str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert 'sign, compressed_adam' in (tmp_path / 'memory.txt').read_text()
    assert (tmp_path / 'memory.png').read_bytes().startswith(b'\x89PNG')
    runs = (tmp_path / 'runs.json').stat().st_mtime_ns
    trainer = Trainer(QUICK, tmp_path / 'runs.json')
    compare(trainer, METHODS[:1], 0.01, 1)
    assert (tmp_path / 'runs.json').stat().st_mtime_ns == runs
    assert trainer.runs[0].curve[0] > trainer.runs[0].curve[-1]


def test_runs_of_another_setting_are_not_taken_for_its_own(tmp_path):
    path = tmp_path / 'runs.json'
    kept = {
        'setting': dataclasses.asdict(QUICK),
        'runs': [dataclasses.asdict(Run('m', 1.0, 0, [1.0]))],
    }
    path.write_text(json.dumps(kept))
    assert Trainer(QUICK, path).runs == [Run('m', 1.0, 0, [1.0])]
    with pytest.raises(ValueError, match='another setting'):
        Trainer(SETTING, path)
    result = CliRunner().invoke(app, ['--horizon', '60', '--out', str(tmp_path)])
    assert result.exit_code == 2


def test_an_unknown_method_is_refused(tmp_path):
    result = CliRunner().invoke(app, ['--quick', '--method', 'nothing', '--out', str(tmp_path)])
    assert result.exit_code == 2
