"""The search for the best rate of a method, and a file in which its runs are kept."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

R = TypeVar('R')
SMALLEST = 1e-6  # of the first rate, below which a method that diverges is given up


class KeptRuns(Generic[R]):
    """Runs of one setting, in a JSON file, so that an interrupted search goes on.

    Args:
      path: of the file; runs that it holds are read.
      setting: a dataclass, which all runs have in common.
      kind: the dataclass of a run.

    Raises:
      ValueError: the file holds runs of another setting.
    """

    def __init__(self, path: Path, setting: Any, kind: type[R]) -> None:
        self._path, self._setting = path, dataclasses.asdict(setting)
        self.runs: list[R] = []
        if path.is_file():
            kept = json.loads(path.read_text())
            if kept['setting'] != self._setting:
                raise ValueError(
                    f'{path} holds runs of another setting, {kept["setting"]}. Choose another '
                    f'folder by --out for {self._setting}.'
                )
            self.runs = [kind(**run) for run in kept['runs']]

    def add(self, run: R) -> None:
        """Keeps one more run."""
        self.runs.append(run)
        runs = [vars(run) for run in self.runs]
        self._path.write_text(json.dumps({'setting': self._setting, 'runs': runs}))


def best_of(run: Callable[[float], R], loss: Callable[[R], float], rate: float, factor: float) -> R:
    """The run at the best rate, found by walking from `rate` while the loss gets lower.

    Args:
      run: from a rate to its run.
      loss: of a run.
      rate: where the walk begins.
      factor: between neighbouring rates.
    """
    best, at = run(rate), rate
    while not math.isfinite(loss(best)) and at > SMALLEST * rate:  # it diverged
        at /= factor
        best = run(at)
    for step in (factor, 1 / factor):
        start = at
        while loss(other := run(at * step)) < loss(best):
            best, at = other, at * step
        if at != start:  # the other side is known to be worse
            break
    return best
