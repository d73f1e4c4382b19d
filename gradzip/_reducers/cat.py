"""A fraction of entries that is chosen at every step: the most descent for what a message costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from gradzip import _checks as checks, _collectives as collectives
from gradzip._base import Array, AxisName, Key, Like, Reduced, Reducer, State, like_of
from gradzip._buffer import payload_bits
from gradzip._compressors.topk import TopK, kept
from gradzip._kernels.selection import top_k
from gradzip._reducers.branches import shared_types
from gradzip._reducers.gather import Gather


@dataclasses.dataclass(frozen=True)
class CAT(Reducer):
    """`Gather(TopK(T))` with the fraction T of a grid that maximises share(T) / cost(T).

    share(T) is the share of |x|^2 in the entries that TopK(T) keeps, of all leaves together and in
    the mean of the workers. At the step size 1/L it is proportional to the descent that is
    guaranteed, F(x+) <= F(x) - share(T) |grad F|^2 / (2 L). All workers choose the same fraction,
    after an all-reduce of one number for each fraction. Because shapes are static, each fraction is
    compiled, and `lax.switch` runs one.

    If a message costs its bits only, the smallest fraction is the best at almost every step. The
    cost of a message apart from its bits (a header, a latency) and packets make longer ones worth
    their while.

    The step 1/L is too short for a few entries, along which the curvature is far below L.
    `scale_by_newton_linesearch` behind the exchange takes the step to the minimum along the
    message. The choice looks one message ahead: over a whole run a fixed fraction may cost less
    (`python -m experiments.paper --claim cat`).

    Args:
      fractions: two or more, ascending, in (0, 1].
      overhead: what a message costs apart from its payload, in bits: a latency in seconds times the
        bits per second of the link, say.
      packet: the size of a packet, in bits, of which a payload then costs whole ones; None for no
        packets.

    Bytes: those of the fraction that was chosen, and four for each fraction. `payload_bytes`, as of
      every conditional, counts the largest.

    Guarantee: contractive with the delta of the smallest fraction. On one node without memory, at
      the step size 1/L, the cost until F - F* has fallen by a factor c is at most
      (L/mu) ln(c) min_T cost(T)/delta(T) + max_T cost(T), with delta(T) that of TopK(T). This is
      what is guaranteed for the best fixed fraction, and the cost of one message. For a step lowers
      ln(F - F*) by at least share(T) mu/L, and share(T)/cost(T) >= max_T' delta(T')/cost(T'). On a
      quadratic, the step to the minimum along the message lowers F by as much, and the guarantee is
      the same.

    Raises:
      ValueError: fewer than two fractions, one that is not in (0, 1], fractions that do not ascend,
        overhead below 0, or packet not above 0.
      TypeError: an argument is not a number, or fractions is no tuple.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> tx = gz.compress(gz.CAT((0.25, 0.5, 1.0), overhead=500))
      >>> flat, steep = jnp.ones(8), jnp.array([9.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
      >>> [int(jnp.sum(tx.update(g, tx.init(g))[0] != 0)) for g in (flat, steep)]
      [8, 2]

    Reference: Khirirat, Magnusson, Aytekin, Johansson, arXiv 2003.06377, whose number of entries is
      any; the proof is given here.
    """

    fractions: tuple[float, ...]
    _: dataclasses.KW_ONLY
    overhead: float = 0.0
    packet: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.fractions, tuple | list):
            raise TypeError(f'CAT(fractions=...) must be a tuple; got {self.fractions!r}.')
        for fraction in self.fractions:
            checks.unit_interval('CAT', 'fractions', fraction)
        found = tuple(float(fraction) for fraction in self.fractions)
        if len(found) < 2 or list(found) != sorted(set(found)):
            raise ValueError(
                f'CAT(fractions=...) must be two or more that ascend; got {self.fractions!r}. For '
                'one fraction use TopK.'
            )
        if not 0 <= checks.real('CAT', 'overhead', self.overhead) < math.inf:
            raise ValueError(f'CAT(overhead=...) must be at least 0; got {self.overhead!r}.')
        if self.packet is not None and not 0 < checks.real('CAT', 'packet', self.packet) < math.inf:
            raise ValueError(f'CAT(packet=...) must be above 0; got {self.packet!r}.')
        object.__setattr__(self, 'fractions', found)

    def contractive(self, like: Like) -> CAT:
        del like
        return self

    def reduce(
        self, xs: list[Array], states: list[State], keys: list[Key], axis_name: AxisName | None
    ) -> list[Reduced]:
        share = collectives.mean(self._shares(xs), axis_name)
        costs = [self._cost(xs, fraction) for fraction in self.fractions]
        turn = jnp.argmax(share / jnp.asarray(costs, share.dtype)).astype(jnp.int32)

        def branch(fraction: float) -> Callable:
            def run(xs: list[Array], keys: list[Key]) -> list[Reduced]:
                found = Gather(TopK(fraction)).reduce(xs, [()] * len(xs), keys, axis_name)
                return [shared_types(x, r, ()) for x, r in zip(xs, found, strict=True)]

            return run

        found = lax.switch(turn, [branch(f) for f in self.fractions], xs, keys)
        return [r._replace(state=state) for r, state in zip(found, states, strict=True)]

    def _shares(self, xs: list[Array]) -> Array:
        """Returns the share of the energy that every fraction keeps, f32[fractions]."""
        largest = [jnp.max(jnp.abs(x), initial=0).astype(jnp.float32) for x in xs]
        scale = jnp.max(jnp.stack(largest))
        scale = jnp.where(scale > 0, scale, 1)  # squares then neither overflow nor vanish
        total, energies = jnp.float32(0), jnp.zeros(len(self.fractions), jnp.float32)
        for x in xs:
            counts = [kept(fraction, x.size) for fraction in self.fractions]
            if not x.size:
                continue
            values = top_k(x.ravel(), counts[-1])[0].astype(jnp.float32) / scale
            steps = jnp.cumsum(jnp.sort(values**2, descending=True))
            energies = energies + steps[jnp.asarray(counts) - 1]
            total = total + jnp.sum((x.astype(jnp.float32) / scale) ** 2)
        return energies / jnp.where(total > 0, total, 1)

    def _cost(self, xs: list[Array], fraction: float) -> float:
        """Returns what a message of all arrays costs, in bits."""
        bits = sum(payload_bits(TopK(fraction), like_of(x)) for x in xs)
        if self.packet is not None:
            bits = self.packet * math.ceil(bits / self.packet)
        return max(1.0, self.overhead + bits)
