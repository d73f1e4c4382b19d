"""The command line: `python -m experiments.network --help`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.exchanges import EXACT, chosen as chosen_schemes, schemes
from experiments.models import Size
from experiments.network.links import Link, NetworkError
from experiments.network.parts import Choice, Part, gradient_part, training_part
from experiments.network.workers import WorkerDied, terminable_network

SPEEDS = {'unlimited': None, '10G': 1e10, '1G': 1e9, '100M': 1e8, '10M': 1e7}  # bits per second
DELAYS = '0,1,20'  # ms each way: one room, one city, one continent
ROWS = 4096  # of a square matrix: 16.8 million entries, 67 MB of float32
ROUNDS = 2  # each link sees every scheme so often, in turn
STEPS = 150  # of the exact mean; the loss after them is the target
FULL = '100M'  # the link on which the training is also run in full
QUICK_ROWS, QUICK_SPEEDS, QUICK_SCHEMES = 1024, '1G,100M', (EXACT, 'TopK 1 %')
QUICK_SIZE, QUICK_STEPS = Size(layers=1, width=64, heads=4, context=32), 20
WIDTH = 150  # of tables where there is no terminal to ask

app = typer.Typer(add_completion=False, rich_markup_mode='rich')


@app.command()
def main(
    workers: Annotated[int, typer.Option(min=2, max=4, help='Processes, a namespace each.')] = 2,
    speeds: Annotated[
        str, typer.Option(metavar='SPEED,...', help=f'Some of {", ".join(SPEEDS)}, or as 250M.')
    ] = ','.join(SPEEDS),
    delays: Annotated[
        str, typer.Option(metavar='MS,...', help='Each way, where the kernel can (netem).')
    ] = DELAYS,
    only: Annotated[
        list[str] | None,
        typer.Option('--scheme', metavar='NAME', help=f'Repeat for several: {list(schemes())}.'),
    ] = None,
    part: Annotated[
        list[Part] | None, typer.Option(help='Repeat for both, which is the default.')
    ] = None,
    rows: Annotated[int, typer.Option(min=8, help='Of the square matrix exchanged.')] = ROWS,
    layers: Annotated[int, typer.Option(min=1, help='Of the transformer.')] = Size().layers,
    width: Annotated[int, typer.Option(min=8, help='Of the transformer.')] = Size().width,
    steps: Annotated[
        int, typer.Option(min=1, help=f'Of the {EXACT}; all others train to its loss then.')
    ] = STEPS,
    full: Annotated[
        str, typer.Option(metavar='SPEED', help="Where to train in full as a check; '' for none.")
    ] = FULL,
    rounds: Annotated[
        int, typer.Option(min=1, help='Over which schemes are interleaved.')
    ] = ROUNDS,
    quick: Annotated[
        bool,
        typer.Option(
            '--quick',
            help=f'A matrix of {QUICK_ROWS} rows, a small transformer, links {QUICK_SPEEDS}, two '
            'schemes: a minute.',
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help='Folder for tables, CSV and figures.')] = Path(
        'experiments/output/network'
    ),
) -> None:
    """Exchanges gradients between processes on limited links, scheme by scheme. Needs root.

    First one bare gradient, then those of a transformer in training: time to the same loss. Every
    process runs in a network namespace of its own, joined by a bridge; the namespaces are removed
    at the end, also after Ctrl-C.
    """
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        choice = Choice(
            links=_links(QUICK_SPEEDS if quick else speeds, '0' if quick else delays),
            schemes=chosen_schemes(list(QUICK_SCHEMES) if quick and only is None else only),
            rounds=1 if quick else rounds,
            rows=QUICK_ROWS if quick else rows,
            size=QUICK_SIZE if quick else Size(layers, width),
            steps=QUICK_STEPS if quick else steps,
            full=_links(full, '0')[0] if full else None,
        )
        out.mkdir(parents=True, exist_ok=True)
        begin, chosen = time.time(), part or list(Part)
        with terminable_network(workers) as made:
            if any(link.delay for link in choice.links) and (reason := made.can_delay()):
                console.print(f'No delays here, this kernel cannot: {reason}', highlight=False)
                choice = choice._replace(links=[link for link in choice.links if not link.delay])
            if Part.gradient in chosen:
                gradient_part(made, choice, out, console)
            if Part.training in chosen:
                training_part(made, choice, out, console)
        console.print(f'In {time.time() - begin:.0f} s; files in {out}.')
    except (ValueError, NetworkError, WorkerDied) as error:
        Console(stderr=True).print(f'Error: {error}', style='red', markup=False, highlight=False)
        raise typer.Exit(2) from None


def _links(speeds: str, delays: str) -> list[Link]:
    links = []
    for speed in speeds.split(','):
        for delay in delays.split(','):
            links.append(Link(_name(speed), _bits(speed), _milliseconds(delay) / 1e3))
    return links


def _name(speed: str) -> str:
    return speed if speed == 'unlimited' else f'{speed[:-1]} {speed[-1]}bit/s'


def _bits(speed: str) -> float | None:
    if speed in SPEEDS:
        return SPEEDS[speed]
    unit = {'G': 1e9, 'M': 1e6}.get(speed[-1:])
    if unit is None or not speed[:-1].isdecimal() or int(speed[:-1]) < 1:
        raise ValueError(f'--speeds must be such as {",".join(SPEEDS)} or 250M; got {speed!r}.')
    return int(speed[:-1]) * unit


def _milliseconds(delay: str) -> float:
    if not delay.isdecimal():
        raise ValueError(f'--delays must be whole milliseconds, such as {DELAYS}; got {delay!r}.')
    return float(delay)


if __name__ == '__main__':
    app(prog_name='python -m experiments.network')
