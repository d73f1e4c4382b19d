"""What late gradients cost, in four questions, each with one figure.

1. How many more iterations do late gradients need?                         iterations.png
2. What does it cost to use a compressed message again?                     floors.png
3. Must a step be safe for the longest delay, if long delays are rare?      adaptive.png
4. Is it better not to wait for slow workers, by the clock?                 least_squares.png
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import typer

from experiments import figures, options, tables
from experiments.staleness import adaptive, floors, least_squares, linear
from experiments.staleness.problem import quadratics

app = typer.Typer(add_completion=False, rich_markup_mode='rich')
PARTS: dict[str, Any] = {part.NAME: part for part in (linear, floors, adaptive, least_squares)}


@app.command()
def main(
    parts: Annotated[str, typer.Option(help='With commas.')] = ','.join(PARTS),
    quick: Annotated[bool, typer.Option('--quick', help='Fewer delays, shorter runs.')] = False,
    out: Annotated[Path, typer.Option(help='Folder for text and figures.')] = Path(
        'experiments/output/staleness'
    ),
) -> None:
    """Measures what late gradients cost."""
    try:
        chosen = options.some_of('--parts', parts, list(PARTS))
    except ValueError as error:
        raise options.refuse(error) from None
    out.mkdir(parents=True, exist_ok=True)
    console, said = tables.console(), []
    with jax.enable_x64(True):
        problem = quadratics()
        for name in chosen:
            part = PARTS[name]
            with console.status(name) as status:
                rows = _measured(
                    part, problem, quick, lambda text, n=name: status.update(f'{n}: {text}')
                )
            figures.save(part.draw(rows), out / f'{name}.png')
            said.extend(part.report(rows))
    tables.show(console, out / 'staleness.txt', *said)
    console.print(f'Files in {out}.')


def _measured(part: Any, problem: Any, quick: bool, report: Callable[[str], None]) -> Any:
    if part is least_squares:  # it has a problem of its own
        return part.measure(quick, report)
    return part.measure(problem, quick, report)


if __name__ == '__main__':
    app(prog_name='python -m experiments.staleness')
