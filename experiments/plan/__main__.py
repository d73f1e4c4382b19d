"""The command line: `python -m experiments.plan --help`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated

import jax
import typer
from rich.console import Console
from rich.progress import Progress

from experiments.bench.timing import WARM_UP
from experiments.exchanges import chosen as chosen_schemes, schemes
from experiments.plan import report, units
from experiments.plan.calibrate import costs
from experiments.plan.model import GLOO, RING
from experiments.plan.report import Place

ROUNDS = 7
WIDTH = 150

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    link: Annotated[str, typer.Option(help="Of every worker, such as 1Gbit; 'unlimited' too.")],
    workers: Annotated[int, typer.Option(min=2, help='How many exchange.')],
    params: Annotated[str, typer.Option(help='How many, such as 124M.')],
    compute: Annotated[str, typer.Option(help='Of one step on one worker, such as 0.3s.')] = '0s',
    latency: Annotated[str, typer.Option(help='One way, such as 1ms.')] = '0ms',
    host: Annotated[
        str, typer.Option(help="What a host's network stack carries; 'unlimited' to ignore it.")
    ] = 'unlimited',
    only: Annotated[
        list[str] | None,
        typer.Option('--scheme', metavar='NAME', help=f'Repeat for several: {list(schemes())}.'),
    ] = None,
    gloo: Annotated[
        bool | None,
        typer.Option(
            '--gloo/--ring',
            help="Whether collectives are gloo's, where the directions of a link take turns.",
            show_default='gloo on CPU',
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help='Of measuring the exchanges.')] = ROUNDS,
    out: Annotated[Path, typer.Option(help='Folder for table, CSV and figure.')] = Path(
        'experiments/output/plan'
    ),
) -> None:
    """Ranks the exchanges for a network, and says when not to compress.

    What encoding and decoding cost is measured here, so run it on a machine like those that will
    train; the rest is counted: bytes and rounds of ring collectives on links of that speed. Number
    of steps to a loss is not predicted: `python -m experiments.network` measures it.
    """
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        gloo = jax.default_backend() == 'cpu' if gloo is None else gloo
        behind = (GLOO if gloo else RING)._replace(bits=_speed('--host', host))
        place = Place(
            bits=_speed('--link', link),
            latency=units.seconds('--latency', latency),
            workers=workers,
            params=units.count(params),
            compute=units.seconds('--compute', compute),
            host=behind,
        )
        chosen = chosen_schemes(only)
    except ValueError as error:
        Console(stderr=True).print(f'Error: {error}', style='red', markup=False, highlight=False)
        raise typer.Exit(2) from None
    with Progress(console=console) as progress:
        task = progress.add_task('exchanges on this machine', total=WARM_UP + rounds)
        found = costs(chosen, place.params, workers, rounds, lambda: progress.advance(task))
    choices = report.ranked(found, place)
    shown, said = report.table(choices, place), '\n'.join(report.advice(choices, place))
    out.mkdir(parents=True, exist_ok=True)
    report.write(out / 'plan.csv', choices)
    report.draw(out / 'plan.png', found, place)
    with (out / 'plan.txt').open('w') as file:
        Console(file=file, width=WIDTH).print(shown, said, sep='\n', highlight=False)
    console.print(shown, said, f'Files in {out}.', sep='\n')


def _speed(option: str, text: str) -> float:
    return math.inf if text == 'unlimited' else units.bits(option, text)


if __name__ == '__main__':
    app(prog_name='python -m experiments.plan')
