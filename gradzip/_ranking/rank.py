"""`rank`: a problem, schemes and a target in, a ranked table out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradzip import _checks as checks, _quantities as quantities, theory
from gradzip._base import Compressor, PyTree
from gradzip._buffer import payload_bits
from gradzip._compressors.identity import Identity
from gradzip._delay_models import Constant, Delay
from gradzip._plan.model import GLOO, RING, Cost
from gradzip._ranking.candidates import Candidate, candidates, likes_of
from gradzip._ranking.table import Choice, Ranking
from gradzip._traffic import collectives_of

AXIS = 'worker'
ORDERS = ('seconds', 'bits', 'iterations')


def rank(
    problem: theory.Problem,
    schemes: Mapping[str, Compressor],
    params: PyTree,
    *,
    target: float,
    delay: int | Delay = 0,
    link: float | str | None = None,
    latency: float | str = 0.0,
    compute: float | str = 0.0,
    collectives: str = 'ring',
    by: str | None = None,
) -> Ranking:
    """Ranks algorithms and compressors by what the theorems predict until a target.

    Every algorithm takes the step size with which its theorem's bound reaches the target soonest, a
    halved one (`theory.halving`) where that is sooner. Without delay the algorithms are the exact
    mean, independent compression (theorem C1), shared draws of a linear compressor (C''), `diana`,
    and for contractive compressors `error_feedback` and `ef21`. With a delay they are late
    gradients compressed at every use (T1) and `iag` (T2). The order is that of the bounds, which
    hold for the worst problem with these constants: a run may need fewer iterations.

    Args:
      problem: mu > 0, with V0, F0 and G, as `advice.measure` returns it.
      schemes: names to compressors. The exact mean is added.
      params: tree of arrays, or of their shapes and dtypes, on which omega and delta depend.
      target: the accuracy, in E |x_k - x*|^2, such as 0.01 * problem.V0.
      delay: how late gradients are: steps, or a model of delay.
      link: the speed of every worker's link, in bits per second or as text ('1Gbit'); a step then
        takes what `gradzip.plan` predicts for its collectives, without encoding and decoding.
      latency: the time of a message one way, in seconds or as text ('1ms').
      compute: the time of a gradient on one worker, in seconds or as text ('20ms').
      collectives: 'ring' or 'gloo', as in `gradzip.plan`.
      by: 'bits', 'iterations' or 'seconds'; by default seconds with a link, and bits without.

    Returns:
      A `Ranking`. `ranking[0].chain(axis_name, key=0)` is the best chain, with its step size.

    Raises:
      ValueError: mu = 0 or a constant is missing, target not above 0, no schemes, an order by
        seconds without a link, or quantities that are none.
      TypeError: a scheme that is no Compressor, or an argument of another kind.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> from gradzip import advice, theory
      >>> problem = theory.Problem(n=8, L=1.0, mu=0.1, L_max=1.5, G=0.1, V0=1.0, F0=0.1)
      >>> schemes = {'TopK': gz.TopK(0.25), 'QSGD': gz.QSGD(7), 'Bernoulli': gz.Bernoulli(0.25)}
      >>> found = advice.rank(problem, schemes, jnp.zeros(64), target=0.01)
      >>> found[0].method, found[0].scheme
      ('distributed', 'QSGD')
      >>> tx = found[0].chain('worker', key=0)
    """
    if isinstance(delay, int):
        checks.integer('rank', 'delay', delay, 0)
        delay = Constant(delay)
    if not isinstance(delay, Delay):
        raise TypeError(f'rank(delay=...) must be steps or a model of delay; got {delay!r}.')
    checks.one_of('rank', 'collectives', collectives, ('ring', 'gloo'))
    by = ('bits' if link is None else 'seconds') if by is None else by
    checks.one_of('rank', 'by', by, ORDERS)
    if by == 'seconds' and link is None:
        raise ValueError("rank(by='seconds') needs the speed of the links: pass link='1Gbit'.")
    bits = None if link is None else quantities.bits_per_second('rank(link=...)', link)
    late = quantities.seconds('rank(latency=...)', latency)
    work = quantities.seconds('rank(compute=...)', compute)
    host = GLOO if collectives == 'gloo' else RING
    likes = likes_of(params)
    found = []
    for candidate in candidates(
        _checked(schemes), likes, delay if delay.bound else None, problem.n
    ):
        bound, iterations = _soonest(candidate, problem, target)
        seconds = None
        if bits is not None:
            sent = collectives_of(candidate.exchange(AXIS, 0), likes, {AXIS: problem.n})
            seconds = iterations * (work + Cost(0.0, sent).step(bits, late, host))
        messages = problem.n if candidate.messages is None else candidate.messages
        size = sum(payload_bits(candidate.compressor, like) for like in likes)
        found.append(Choice(candidate, bound, iterations, iterations * messages * size, seconds))
    found.sort(key=lambda choice: getattr(choice, by))
    return Ranking(tuple(found), target, by)


def _soonest(
    candidate: Candidate, problem: theory.Problem, target: float
) -> tuple[theory.Bound | theory.Staged, int]:
    """Returns the bound that reaches the target first, and when; |x - x*|^2 <= 2 (F - F*) / mu."""
    family, options = candidate.family, candidate.options
    if problem.mu == 0:
        raise ValueError(
            'rank needs strong convexity, mu > 0, and this problem has mu=0. Add an l2 term '
            'lam/2 |x|^2 to the loss (then mu >= lam), or compare bounds of theory.for_target.'
        )
    if family in (theory.dcgd, theory.stale) and not isinstance(candidate.compressor, Identity):
        staged = theory.halving(family, problem, target, **options)
        return staged, staged.iterations
    longest = family(problem, **options)
    eps = target if longest.quantity == 'V' else problem.mu * target / 2
    bound = theory.for_target(family, problem, eps, **options)
    return bound, int(bound.iterations(eps))


def _checked(schemes: Any) -> dict[str, Compressor]:
    if not isinstance(schemes, Mapping):
        raise TypeError(
            "rank(schemes=...) must be a mapping of names to compressors, such as {'TopK 1 %': "
            f'gz.TopK(0.01)}}; got {schemes!r}.'
        )
    if not schemes:
        raise ValueError('rank(schemes=...) must name at least one compressor.')
    for name, scheme in schemes.items():
        if not isinstance(scheme, Compressor):
            raise TypeError(
                f'rank(schemes=...) must hold Compressors; {name!r} is {scheme!r}. Reducers and '
                'functions of the leaf have no theorem: compare them with gradzip.plan.'
            )
    return dict(schemes)
