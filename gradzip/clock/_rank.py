"""Which protocol and which scheme reach a loss first: a plan, a clock and a theorem together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradzip import _checks as checks, _quantities as quantities
from gradzip._plan.ranking import Plan
from gradzip.clock._network import Network
from gradzip.clock._protocols import (
    Asynchronous,
    MSynchronous,
    Protocol,
    Quorum,
    Rennala,
    Ringmaster,
    Synchronous,
)
from gradzip.clock._ranking import Ranking, RankRow
from gradzip.clock._simulate import simulate
from gradzip.clock._times import Times
from gradzip.theory import Target, late_sgd

GRADIENTS = 100  # of each worker in a simulation, about


def rank(
    plan: Plan,
    compute: Times | Sequence[Times],
    target: Target,
    *,
    protocols: Sequence[Protocol] | None = None,
    more_steps: Mapping[str, float] = {},
    down: int | None = None,
    server: float | str = 'unlimited',
    seed: int | None = None,
) -> Ranking:
    """Ranks protocols and schemes by the seconds in which they reach a target.

    Each pair is simulated on the links of the plan: a worker sends the bytes of the scheme, after
    the seconds that the plan has for its exchange, and receives the model. The steps are those of
    `theory.late_sgd` with the longest delay of the simulation, times `more_steps`.

    What is not known here: how many more steps a scheme needs; that is measured in a short run. And
    a bound for the longest delay is cautious where long delays are rare, as under `Asynchronous`.

    Args:
      plan: what `gradzip.plan` returned, for as many workers.
      compute: the seconds of one gradient, as in `simulate`; those of the plan are not used.
      target: a `gradzip.theory.Target`: the loss, its noise and the accuracy.
      protocols: those to compare. By default `Synchronous`, `MSynchronous` without the last tenth
        of the workers, `Quorum` of half of them, `Asynchronous`, and `Rennala` and `Ringmaster`
        with the target's batch.
      more_steps: names of schemes to how many times the steps of the exact mean they need; 1 for
        the others.
      down: bytes that a worker receives before it computes; by default the model in float32.
      server: how many bits per second the server receives from all workers, as in `Network`.
      seed: of the random times, as in `simulate`.

    Returns:
      A `Ranking`.

    Raises:
      TypeError: an argument of another kind.
      ValueError: schemes in more_steps that the plan does not have, factors that are not above 0;
        as `simulate`.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> from gradzip import clock
      >>> plan = gz.plan(
      ...     jnp.zeros((1000, 1000)),
      ...     workers=64,
      ...     link='1Gbit',
      ...     schemes={'TopK 1 %': gz.TopK(0.01), '4 bits': gz.QSGD(7)},
      ...     costs='2ms',  # omit it to measure
      ... )
      >>> times = [clock.Exponential(0.1)] * 62 + [clock.Exponential(0.3)] * 2
      >>> target = gz.theory.Target(L=1.0, F0=1.0, variance=1.0, eps=0.05)
      >>> found = clock.rank(
      ...     plan, times, target, more_steps={'TopK 1 %': 2.0, '4 bits': 1.1}, down=40_000, seed=0
      ... )
      >>> found.best.protocol, found.best.scheme
      (MSynchronous(m=58), '4 bits')
    """
    for name, value, kind in (('plan', plan, Plan), ('target', target, Target)):
        if not isinstance(value, kind):
            raise TypeError(f'rank({name}=...) must be a {kind.__name__}; got {value!r}.')
    unknown = set(more_steps) - set(plan.costs)
    if unknown:
        raise ValueError(
            f'rank(more_steps=...) must be of schemes in the plan, which are {list(plan.costs)}; '
            f'got {sorted(unknown)}.'
        )
    factors = {name: _factor(more_steps.get(name, 1.0)) for name in plan.costs}
    received = quantities.bits_per_second('rank(server=...)', server)
    rows = []
    for protocol in _protocols(plan.workers, target) if protocols is None else protocols:
        for scheme, cost in plan.costs.items():
            network = Network(
                up=sum(c.bytes for c in cost.collectives),
                down=4 * plan.entries if down is None else down,
                link=plan.link,
                latency=plan.latency,
                server=received,
                encode=cost.offline,
            )
            steps, each, longest, busy = _simulated(protocol, compute, plan, network, target, seed)
            steps = round(steps * factors[scheme])
            rows.append(RankRow(protocol, scheme, steps * each, steps, each, longest, busy))
    return Ranking(tuple(sorted(rows, key=lambda row: row.seconds)))


def _protocols(n: int, target: Target) -> list[Protocol]:
    return [
        Synchronous(),
        MSynchronous(max(1, n - max(1, n // 10))),
        Quorum(max(1, n // 2)),
        Asynchronous(),
        Rennala(target.batch),
        Ringmaster(target.batch),
    ]


def _simulated(
    protocol: Protocol,
    compute: Any,
    plan: Plan,
    network: Network,
    target: Target,
    seed: int | None,
) -> tuple[int, float, int, float]:
    """Steps to the target, seconds of a step, the longest delay, and how busy the workers were."""
    batch = _batch(protocol, plan.workers)
    run = simulate(
        protocol,
        compute,
        workers=plan.workers,
        steps=max(GRADIENTS, GRADIENTS * plan.workers // batch),
        network=network,
        seed=seed,
    )
    longest = int(run.delays.max())
    _, steps = late_sgd(target, longest, batch=batch)
    return steps, run.seconds_a_step, longest, float(run.utilisation.mean())


def _batch(protocol: Protocol, workers: int) -> int:
    """How many gradients a step averages."""
    if isinstance(protocol, Synchronous):
        return workers
    if isinstance(protocol, MSynchronous):
        return protocol.m
    if isinstance(protocol, Quorum):
        return protocol.quorum
    return getattr(protocol, 'batch', 1)


def _factor(value: Any) -> float:
    factor = checks.real('rank', 'more_steps', value)
    if not factor > 0:
        raise ValueError(f'rank(more_steps=...) must hold factors above 0; got {value!r}.')
    return factor
