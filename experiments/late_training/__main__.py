"""A transformer that learns from late gradients, in two parts.

1. What do delays of 4 and 16 steps cost under SGD and Adam, and does a compensation or a
   compression change that?                                                       delays.png
2. One worker is slow: is it better to wait for it, by the clock?                 seconds.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from experiments import figures, options, tables
from experiments.late_training import delays, delays_report, events, ways_report
from experiments.late_training.cells import cells
from experiments.late_training.ways import WAYS
from experiments.memory.runs import Setting, Trainer
from experiments.models import Model, Size
from experiments.progress import Say, saying

PARTS = ['delays', 'seconds']
QUICK_SIZE = Size(layers=1, width=32, heads=1, context=16)
QUICK_STEPS, QUICK_ROUNDS = 40, 20
RATE = 4e-3  # of Adam, where the search of the second part begins

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    parts: Annotated[str, typer.Option(help='With commas.')] = ','.join(PARTS),
    quick: Annotated[
        bool, typer.Option('--quick', help='A small model, few steps, one seed: two minutes.')
    ] = False,
    layers: Annotated[int, typer.Option(min=1, help='Of the transformer.')] = 2,
    width: Annotated[int, typer.Option(min=32, help='Of the transformer.')] = 64,
    workers: Annotated[int, typer.Option(min=2, help='That are simulated in the first part.')] = 4,
    examples: Annotated[int, typer.Option(min=1, help='Windows of 64 characters a gradient.')] = 2,
    horizon: Annotated[int, typer.Option(min=40, help='Steps of the first part.')] = 300,
    rounds: Annotated[
        int, typer.Option(min=20, help='Synchronous rounds of the second part, for its time.')
    ] = 100,
    seeds: Annotated[int, typer.Option(min=1, help='Runs of everything.')] = 3,
    out: Annotated[Path, typer.Option(help='Folder for tables, runs and figures.')] = Path(
        'experiments/output/late_training'
    ),
) -> None:
    """Trains a transformer with late gradients, in steps and in simulated seconds.

    Rates are tuned in factors of 2 for everything that is compared. Runs are kept in JSON files, so
    that an interrupted command goes on where it stopped.
    """
    size = QUICK_SIZE if quick else Size(layers, width, max(1, width // 32), 64)
    setting = Setting(size, workers, examples, QUICK_STEPS if quick else horizon)
    timed = events.Timed(size, examples, QUICK_ROUNDS if quick else rounds)
    seeds = 1 if quick else seeds
    console = tables.console()
    try:
        chosen = options.some_of('--parts', parts, PARTS)
        out.mkdir(parents=True, exist_ok=True)
        for part in chosen:
            with saying(console) as say:
                if part == 'delays':
                    lines = _in_steps(setting, say, quick, seeds, out)
                else:
                    lines = _in_seconds(timed, say, quick, seeds, out)
            tables.show(console, out / f'{part}.txt', *lines)
    except (ValueError, OSError) as error:
        raise options.refuse(error) from None
    console.print(f'Files in {out}.')


def _in_steps(setting: Setting, say: Say, quick: bool, seeds: int, out: Path) -> list[Any]:
    trainer = Trainer(setting, out / 'delays.json')
    trainer.say = say
    chosen = cells(('SGD',), (0, 4)) if quick else cells()
    found = delays.compare(trainer, chosen, seeds, (1.0,) if quick else delays.STRENGTHS)
    figures.save(delays_report.figure(found, setting), out / 'delays.png')
    table = delays_report.table(found, setting, Model(setting.size))
    return [table, *delays_report.findings(found, setting)]


def _in_seconds(setting: events.Timed, say: Say, quick: bool, seeds: int, out: Path) -> list[Any]:
    trainer = events.EventTrainer(setting, out / 'seconds.json')
    trainer.say = say
    chosen = [WAYS[0], WAYS[-1]] if quick else WAYS
    found = events.compare(trainer, chosen, RATE, seeds)
    figures.save(ways_report.figure(found), out / 'seconds.png')
    table = ways_report.table(found, trainer, Model(setting.size).entries)
    return [table, *ways_report.findings(found, trainer)]


if __name__ == '__main__':
    app(prog_name='python -m experiments.late_training')
