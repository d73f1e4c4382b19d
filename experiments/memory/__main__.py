"""The command line: `python -m experiments.memory --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments import figures, tables
from experiments.memory import report
from experiments.memory.methods import EXACT, METHODS
from experiments.memory.runs import Setting, Trainer, compare
from experiments.models import Model, Size
from experiments.options import refuse
from experiments.progress import saying

QUICK = Setting(Size(layers=1, width=32, heads=2, context=16), workers=4, examples=2, horizon=40)

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    quick: Annotated[bool, typer.Option('--quick', help='A small model, 40 steps.')] = False,
    horizon: Annotated[int, typer.Option(min=20, help='Steps of exact Adam.')] = 300,
    layers: Annotated[int, typer.Option(min=1, help='Of the transformer.')] = 4,
    width: Annotated[int, typer.Option(min=8, help='Of the transformer.')] = 256,
    workers: Annotated[int, typer.Option(min=2, help='That are simulated.')] = 8,
    examples: Annotated[int, typer.Option(min=1, help='Windows of 64 characters a worker.')] = 2,
    seeds: Annotated[int, typer.Option(min=1, help='Runs of every method.')] = 3,
    rate: Annotated[float, typer.Option(help='Where the search for rates begins.')] = 2e-3,
    search: Annotated[
        bool,
        typer.Option(help='For the best rates; without it, --rate and a factor of each method.'),
    ] = True,
    method: Annotated[
        list[str] | None,
        typer.Option(help='A part of the name of a method; repeat for several. All by default.'),
    ] = None,
    out: Annotated[Path, typer.Option(help='Folder for the table, the runs and the figure.')] = (
        Path('experiments/output/memory')
    ),
) -> None:
    """Steps that compressed training needs to the loss of exact Adam.

    Rates are tuned for every method and for exact Adam alike. Runs are kept in runs.json, so that
    an interrupted command goes on where it stopped.
    """
    try:
        size = Size(layers, width, max(1, width // 32), 64)
        setting = QUICK if quick else Setting(size, workers, examples, horizon)
        methods = [m for m in METHODS if _wanted(m.name, method)]
        if len(methods) < 2:
            names = ', '.join(m.name for m in METHODS)
            raise ValueError(f'--method {method}: no method has this in its name. Known: {names}.')
        out.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(setting, out / 'runs.json')
    except (ValueError, OSError) as error:
        raise refuse(error) from None
    console = tables.console()
    with saying(console) as trainer.say:
        rate, seeds = (0.01, 1) if quick else (rate, seeds)
        found = compare(trainer, methods, rate, seeds, search)
    model = Model(setting.size)
    rows = report.rows(methods, found, model.params, setting)
    figures.save(report.figure(rows, setting), out / 'memory.png')
    shown = report.table(rows, setting, model.entries, search)
    tables.show(console, out / 'memory.txt', shown, *report.findings(rows))
    console.print(f'Files in {out}.')


def _wanted(name: str, parts: list[str] | None) -> bool:
    return name == EXACT or not parts or any(part in name for part in parts)


if __name__ == '__main__':
    app(prog_name='python -m experiments.memory')
