"""What a simulation found: every message, every step, and how busy the workers were."""

from __future__ import annotations

import dataclasses

import numpy as np

from gradzip import _checks as checks
from gradzip._quantities import duration
from gradzip._trace import Trace
from gradzip.clock._protocols import Protocol

LARGEST = 1 << 28  # entries of a trace: 1 GB
BARS, WIDTH = 8, 40  # of the histogram that a summary shows


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A simulated run, as `simulate` returns it. Printing it shows `summary()`.

    Messages are events in the order of their arrival at the server. The versions of the model are
    numbered by the steps before them: step k uses gradients for version k.

    Args:
      protocol: what was simulated.
      worker: i32[events], who sent each message.
      born: i32[events], the version at which its gradient was computed.
      applied: i32[events], the step that used it; where it was dropped, the version at its arrival.
      seconds: f64[events], when it arrived.
      used: bool[events], False where it was dropped. Gradients that a protocol stopped before they
        were complete are no events.
      step_seconds: f64[steps], when each step was taken: draw a loss curve against these.
      utilisation: f64[workers], the share of the time in which each worker computed.
      useful: f64[workers], the share in which it computed gradients that were used.

    Example:
      >>> from gradzip import clock
      >>> times = [clock.Constant(1), clock.Constant(4)]
      >>> run = clock.simulate(clock.Asynchronous(), times, steps=10)
      >>> print(run.trace())
      Trace(i32[10, 2], bound=8, checksum=...)
    """

    protocol: Protocol
    worker: np.ndarray
    born: np.ndarray
    applied: np.ndarray
    seconds: np.ndarray
    used: np.ndarray
    step_seconds: np.ndarray
    utilisation: np.ndarray
    useful: np.ndarray

    @property
    def workers(self) -> int:
        """How many there were."""
        return len(self.utilisation)

    @property
    def steps(self) -> int:
        """How many the server took."""
        return len(self.step_seconds)

    @property
    def seconds_a_step(self) -> float:
        """The mean over the run."""
        return float(self.step_seconds[-1]) / self.steps

    @property
    def delays(self) -> np.ndarray:
        """How many steps late each used gradient was, in the order of arrival: i32[used]."""
        return (self.applied - self.born)[self.used]

    @property
    def histogram(self) -> np.ndarray:
        """How many used gradients were 0, 1, 2, ... steps late: i64[longest delay + 1]."""
        return np.bincount(self.delays)

    def trace(self, steps: int | None = None) -> Trace:
        """Returns the age of every worker's last used gradient at each step, for a chain.

        `gz.iag(scheme, axis, run.trace())` then uses the same table of gradients as a server that
        remembers the last one of each worker, and `gz.delay(run.trace(), axis)` makes gradients
        equally late. A worker that has not been heard yet counts as heard at version 0.

        For a server that applies one gradient a step, take `run.worker[run.used]` and `run.delays`
        instead: who sent the gradient of each step, and how late it was.

        Args:
          steps: how many, at most those of the run; by default all.

        Returns:
          A `gradzip.Trace` of shape [steps, workers].

        Raises:
          ValueError: steps is out of range, or steps times workers is above 2^28.
          TypeError: steps is not an integer.
        """
        steps = self.steps if steps is None else steps
        checks.integer('trace', 'steps', steps, 1, self.steps)
        if steps * self.workers > LARGEST:
            raise ValueError(
                f'A trace of {steps} steps and {self.workers} workers is above 2^28 entries: pass '
                f'steps=, at most {LARGEST // self.workers}.'
            )
        heard = self.used & (self.applied < steps)
        born = np.zeros((steps, self.workers), np.int32)
        np.maximum.at(born, (self.applied[heard], self.worker[heard]), self.born[heard])
        np.maximum.accumulate(born, axis=0, out=born)  # later messages are born later
        return Trace(np.arange(steps, dtype=np.int32)[:, None] - born)

    def summary(self) -> str:
        """Returns a table of seconds, delays and utilisation, and a histogram of the delays.

        Example:
          >>> from gradzip import clock
          >>> times = [clock.Constant(1), clock.Constant(4)]
          >>> run = clock.simulate(clock.Ringmaster(3), times, steps=8)
          >>> print(run.summary())
          protocol      Ringmaster(limit=3)
          workers       2
          steps         8, one in 1 s
          time          8 s
          gradients     8 used, 1 dropped
          delays        mean 0, 95 % up to 0, longest 0
          utilisation   mean 100 %, lowest 100 %
          useful        mean 50 %, lowest 0 %
          up to 0       8 ########################################
        """
        lost = len(self.used) - int(self.used.sum())
        delays = self.delays
        rows = {
            'protocol': str(self.protocol),
            'workers': f'{self.workers:,}',
            'steps': f'{self.steps:,}, one in {duration(self.seconds_a_step)}',
            'time': duration(float(self.step_seconds[-1])),
            'gradients': f'{len(delays):,} used, {lost:,} dropped',
            'delays': f'mean {delays.mean():.3g}, 95 % up to {np.quantile(delays, 0.95):.0f}, '
            f'longest {delays.max()}',
            'utilisation': _shares(self.utilisation),
            'useful': _shares(self.useful),
        }
        lines = [f'{name:<14}{value}' for name, value in rows.items()]
        return '\n'.join([*lines, *_bars(self.histogram)])

    def __repr__(self) -> str:
        return self.summary()


def _shares(share: np.ndarray) -> str:
    return f'mean {share.mean():.0%}, lowest {share.min():.0%}'.replace('%', ' %')


def _bars(counts: np.ndarray) -> list[str]:
    """A line for each of at most eight equally wide classes of delays."""
    width = -(-len(counts) // BARS)
    classes = np.add.reduceat(counts, np.arange(0, len(counts), width))
    ends = np.append(np.arange(width, len(counts), width), len(counts)) - 1
    figures = [f'{count:,}' for count in classes]
    space = max(map(len, figures))
    return [
        f'up to {end:<7} {figure:>{space}} {"#" * round(WIDTH * count / classes.max())}'.rstrip()
        for end, figure, count in zip(ends, figures, classes, strict=True)
    ]
