"""Training with late gradients: what is compared, how rates are found, what the clock hands on."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.late_training import delays, delays_report, ways
from experiments.late_training.cells import Cell, cells
from experiments.memory.runs import EVERY, Run, Setting, Trainer
from experiments.models import Size
from gradzip import clock

SETTING = Setting(Size(1, 32, 1, 16), workers=2, examples=1, horizon=40)


class Curves(Trainer):
    """Runs that take no time: late gradients cost, and a compensation of strength 16 helps."""

    def run(self, method, rate, seed, target):
        del target
        kept = [
            run
            for run in self.runs
            if (run.method, run.rate, run.seed) == (method.name, rate, seed)
        ]
        if kept:
            return kept[0]
        late = int(method.name.split('delay ')[1].split(',')[0])
        end = 2 + late / 8 - 0.5 * method.name.endswith(' 16') + abs(np.log2(rate / 0.125))
        losses = 1 + np.linspace(4 + end, end - 1, SETTING.horizon // EVERY) + 0.01 * seed
        self.runs.append(Run(method.name, rate, seed, losses.tolist()))
        return self.runs[-1]


def test_rates_and_strengths_are_tuned_on_the_first_seed(tmp_path):
    trainer = Curves(SETTING, tmp_path / 'runs.json')
    chosen = cells(('SGD',), (0, 8))
    found = delays.compare(trainer, chosen, 2)
    assert [f.cell for f in found.values()] == chosen
    assert len({f.runs[0].method for f in found.values()}) == len(chosen) == 6
    assert all(f.runs[0].rate == 0.125 for f in found.values())
    assert all(f.strength == (16 if f.cell.compensated else 1) for f in found.values())
    first, late, helped = (
        found[c] for c in (Cell('SGD', 0), Cell('SGD', 8), Cell('SGD', 8, False, True))
    )
    assert (first.tried, late.tried, helped.tried) == (4, 3, 4)  # from 0.5; from the best before
    says = ' '.join(delays_report.findings(found, SETTING))
    assert 'SGD: delays of 8 steps add +1.000 nats after 40 steps; with compression +1.000.' in says
    assert (
        'compensation changes the loss by -0.500 nats without compression (lower in 2 of 2' in says
    )
    assert delays.steps_ratio(found, Cell('SGD', 0), SETTING) == 1
    assert delays.steps_ratio(found, Cell('SGD', 8), SETTING) > 1
    assert len(delays_report.figure(found, SETTING).axes) == 2


def test_every_way_has_the_same_time_and_its_own_gradients():
    networks = {
        packed: clock.Network(up=up, down=8 * up, link=ways.LINK)
        for packed, up in ((False, 50_000), (True, 5_000))
    }
    until, counts = ways.horizon(networks[False], 50, seed=0), {}
    for way in ways.WAYS:
        arrived = ways.arrivals(way, networks[way.compressed], until, seed=0)
        counts[way.name] = len(arrived.worker)
        assert len(arrived.worker) == len(arrived.delays) == way.batch * len(arrived.step_seconds)
        assert until - 2 < arrived.step_seconds[-1] <= until
        if way.batch > 1:
            assert (arrived.delays == 0).all()
        else:
            assert 5 < arrived.delays.mean() < ways.WORKERS
    assert counts['synchronous'] == 50 * ways.WORKERS
    assert counts['asynchronous'] > 2 * counts['synchronous']
    assert counts['asynchronous, compressed'] > counts['asynchronous']


def test_a_worker_receives_the_model_or_the_messages_of_all():
    params = jax.ShapeDtypeStruct((100_000,), jnp.float32)
    model = ways.network(params, compressed=False)
    assert model.up == model.down == 4 * 100_000
    packed = ways.network(params, compressed=True)
    assert packed.down == ways.WORKERS * packed.up < model.down / 5
