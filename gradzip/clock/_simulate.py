"""`simulate`: a protocol, the times of its workers and a network in, a `Run` out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradzip import _checks as checks
from gradzip.clock import _free as free, _rounds as rounds, _waiting as waiting
from gradzip.clock._cycles import Cycles
from gradzip.clock._events import Events
from gradzip.clock._network import Network
from gradzip.clock._protocols import (
    Asynchronous,
    BoundedStaleness,
    MSynchronous,
    Protocol,
    Quorum,
    Rennala,
    Ringmaster,
    RoundRobin,
    Synchronous,
)
from gradzip.clock._run import Run
from gradzip.clock._times import Times


def simulate(
    protocol: Protocol,
    compute: Times | Sequence[Times],
    *,
    steps: int,
    workers: int | None = None,
    network: Network | None = None,
    local_steps: int = 1,
    seed: int | None = None,
) -> Run:
    """Simulates a protocol in seconds: when every gradient arrives, and how late it is used.

    Every worker has a stream of random numbers of its own, which depends on the seed and on its
    number alone. So different protocols meet the same times with the same seed. Two messages that
    arrive in the same instant are received in the order of the workers.

    Ten million events take seconds for the protocols whose workers never wait (`Asynchronous`,
    `Rennala`, `Ringmaster`) and for those in rounds, unless the server receives one message after
    the other; the rest costs two to four microseconds an event.

    Args:
      protocol: when the server takes a step, such as `Asynchronous()`.
      compute: the seconds of one gradient, a `Times`; or a sequence with one for each worker.
      steps: of the server, at least 1.
      workers: how many, where compute is one `Times` for all.
      network: the links and the bytes of a message; by default messages take no time.
      local_steps: how many gradients a worker computes, one after the other, for one message.
      seed: of the random times, an integer at least 0; None if all times are constant.

    Returns:
      A `Run`.

    Raises:
      ValueError: times that draw without a seed; workers missing, or another number than that of
        times or links; a protocol that waits for more workers than there are; a number out of
        range.
      TypeError: an argument of another kind.

    Example:
      >>> from gradzip import clock
      >>> times = [clock.Exponential(1.0)] * 6 + [clock.Exponential(3.0)] * 2  # two are slow
      >>> together = clock.simulate(clock.Synchronous(), times, steps=1000, seed=0)
      >>> alone = clock.simulate(clock.Asynchronous(batch=8), times, steps=1000, seed=0)
      >>> bool(together.seconds_a_step > 3 * alone.seconds_a_step)
      True
    """
    cycles = checked('simulate', protocol, compute, workers, network, local_steps)
    checks.integer('simulate', 'steps', steps, 1)
    if seed is not None:
        checks.integer('simulate', 'seed', seed, 0)
    elif any(times.random for times in cycles.times):
        raise ValueError('simulate draws random times: pass seed=, an integer.')
    events = _engine(protocol, Cycles(cycles.times, cycles.network, local_steps, seed), steps)
    end = events.step_seconds[-1]
    return Run(protocol, *events[:6], events.computing / end, events.useful / end)


def checked(
    owner: str,
    protocol: Any,
    compute: Any,
    workers: int | None,
    network: Any,
    local_steps: int,
) -> Cycles:
    """Returns the cycles of the workers, without a seed, where all arguments fit together."""
    if not isinstance(protocol, Protocol):
        raise TypeError(
            f'{owner}(protocol=...) must be a protocol such as clock.Asynchronous(); got '
            f'{protocol!r}.'
        )
    checks.integer(owner, 'local_steps', local_steps, 1)
    network = Network() if network is None else network
    if not isinstance(network, Network):
        raise TypeError(f'{owner}(network=...) must be a clock.Network; got {network!r}.')
    cycles = Cycles(_each(owner, compute, workers), network, local_steps, None)
    n, needed = cycles.workers, protocol.needs()
    if needed > n:
        raise ValueError(
            f'{protocol} waits for {needed} workers in a step, but there are {n}, so no step would '
            f'ever complete: it must wait for at most {n}.'
        )
    cycles.network.check_workers(n)
    return cycles


def _each(owner: str, compute: Any, workers: int | None) -> tuple[Times, ...]:
    """The times of every worker."""
    if workers is not None:
        checks.integer(owner, 'workers', workers, 1)
    if isinstance(compute, Times):
        if workers is None:
            raise ValueError(
                f'{owner}(workers=...) must be the number of workers, as compute is one Times for '
                'all of them.'
            )
        return (compute,) * workers
    if not isinstance(compute, Sequence) or not all(isinstance(t, Times) for t in compute):
        raise TypeError(
            f'{owner}(compute=...) must be a Times such as clock.Exponential(1.0), or a sequence '
            f'with one for each worker; got {compute!r}.'
        )
    if not compute or workers not in (None, len(compute)):
        raise ValueError(
            f'{owner}(compute=...) must have a Times for each worker; got {len(compute)} of them '
            f'for {"no" if workers is None else workers} workers.'
        )
    return tuple(compute)


def _engine(protocol: Protocol, cycles: Cycles, steps: int) -> Events:
    match protocol:
        case Asynchronous() | Rennala() | Ringmaster():
            return free.run(protocol, cycles, steps)
        case Synchronous() | MSynchronous():
            return rounds.together(protocol, cycles, steps)
        case RoundRobin():
            return rounds.in_turn(protocol, cycles, steps)
        case Quorum():
            return waiting.quorum(protocol, cycles, steps)
        case BoundedStaleness():
            return waiting.bounded_staleness(protocol, cycles, steps)
    raise TypeError(f'simulate knows the protocols of gradzip.clock; got {protocol!r}.')
