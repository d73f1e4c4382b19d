"""Sections B and C: many workers, no delay. The proofs are about f = sum_i f_i, with step gamma.

    B   x_{k+1} = x_k - gamma (n/b) sum_{i in B_k} Q_i(grad f_i(x_k)),   B_k a random b-subset
    C   x_{k+1} = x_k - gamma sum_i Q_i(grad f_i(x_k))

Both satisfy E|g|^2 <= A |grad f|^2 + B sum_i |grad f_i|^2, from which `_cocoercive` concludes.
"""

from __future__ import annotations

import dataclasses

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._descent import gd
from gradzip.theory._problem import Problem
from gradzip.theory._sum_form import SumForm, sum_form

_CONVEX = 'every f_i convex and smooth, F strongly convex, Q unbiased, '
_REGULARISE = (
    'Add an l2 term lam/2 |x|^2 to the loss (then mu >= lam), or, if the workers can share the '
    'randomness of a linear compressor, use theory.dcgd(shared=True), which covers mu = 0.'
)


def minibatch(
    problem: Problem,
    omega: float | None,
    batch: int,
    *,
    step_size: float | None = None,
    shared: bool = False,
) -> Bound:
    """Theorem B1: in every step, `batch` random workers send compressed gradients.

    With omega = 0 this is mini-batch gradient descent, and with batch = 1 the incremental method.
    For batch = n it is theorem C1.

    Args:
      problem: the theorem needs L_max, the floor needs G, and values of the bound need V0.
      omega: constant of an unbiased compressor, 0 without compression. None (biased) raises.
      batch: number of workers in a step, drawn without replacement. Their sum is scaled by
        n / batch, as in `gradzip.participate`.
      step_size: where to evaluate the bound, below twice the default n / Lam.
      shared: must be False, as the theorem is about independent noise.

    Returns:
      A `Bound` on 'V', with a floor unless G = 0.

    Raises:
      ValueError: omega is None (biased), mu = 0, the noise is shared, or the step is too long.
      TypeError: an argument is not a number, or shared is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=8, L=1.0, mu=0.1, L_max=2.0, G=0.0)
      >>> theory.minibatch(problem, omega=0.0, batch=1).step_size  # 1 / L_max
      0.5

    Reference: the setting is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573 (and
      their CDC 2017 paper on mini-batches); the constants are derived here.
    """
    omega = assume.unbiased('Theorem B1', omega)
    assume.independent(
        'Theorem B1', shared, 'Use gradzip.Gather(scheme), whose workers draw independently.'
    )
    b = assume.integer('minibatch', 'batch', batch, 1, problem.n)
    s = sum_form(problem, 'Theorem B1')
    # A and B come from the second moment of sampling without replacement
    A = 1.0 if b == s.n else s.n * (b - 1) / (b * (s.n - 1))
    B = s.n / b * ((0.0 if b == s.n else (s.n - b) / (s.n - 1)) + omega)
    return _cocoercive(f'B1: {b} random workers a step', s, A, B, problem, step_size, b)


def dcgd(
    problem: Problem,
    omega: float | None,
    *,
    shared: bool = False,
    linear: bool = True,
    step_size: float | None = None,
) -> Bound:
    """Distributed compressed gradient descent: theorems C1, C', C''.

    | noise of the workers | theorem | floor |
    |---|---|---|
    | independent (`gradzip.Gather`) | C1 | in omega G |
    | shared, linear compressor: one mask for all (`gradzip.Sum`) | C'' | none |
    | shared=True, linear=False: dependent in any way | C', far worse | in sigma alpha G |

    Args:
      problem: the theorems need L_max, except for C''. The floor needs G, and values of the bound
        need V0.
      omega: constant of an unbiased compressor, 0 without compression. Of several compressors,
        take the largest. None (biased) raises.
      shared: whether the workers share their randomness.
      linear: whether sum_i Q(g_i) = Q(sum_i g_i) when they share it. Unless sigma = n, C' also
        needs that Q(v) is zero wherever v is.
      step_size: where to evaluate the bound, below twice the default (C'': below 2 / (alpha L)).

    Returns:
      A `Bound` on 'V' (C'' with mu = 0: on 'F_mean').

    Raises:
      ValueError: omega is None (biased), mu = 0 (except for C''), or the step is too long.
      TypeError: an argument is not a number, or a flag is not True or False.

    Example:
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=4, L=1.0, mu=0.5, L_max=1.0, G=1.0, V0=1.0)
      >>> alone = theory.dcgd(problem, omega=3.0)
      >>> masked = theory.dcgd(problem, omega=3.0, shared=True)
      >>> alone.step_size, round(alone.floor, 6)  # 1 / (L + 2 omega L_max / n)
      (0.4, 0.3)
      >>> round(masked.step_size, 3), masked.floor  # 2 / (alpha (mu + L))
      (0.333, 0.0)

    Reference: the setting is that of Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573; the
      constants are derived here.
    """
    omega = assume.unbiased('Theorem C (theory.dcgd)', omega)
    shared, linear = assume.flag('dcgd', 'shared', shared), assume.flag('dcgd', 'linear', linear)
    if shared and linear:  # C'': sum_i Q(grad f_i) = Q(grad f), so theorem A applies
        bound = gd(problem, omega, shared=True, step_size=step_size)
        title = "C'': the workers share one linear compressor (theorem {})"
        name = bound.theorem.split(':')[0]
        assumptions = bound.assumptions + ', Q linear and the same on all workers'
        return dataclasses.replace(bound, theorem=title.format(name), assumptions=assumptions)
    if shared:
        s = sum_form(problem, "Theorem C'")
        # E|sum_i Q_i|^2 <= sigma alpha sum_i |grad f_i|^2, because supp Q_i(v) is in supp v
        B = s.sigma * (1 + omega)
        noise = 'workers in any dependence'
        return _cocoercive("C': dependent compressors", s, 0.0, B, problem, step_size, s.n, noise)
    s = sum_form(problem, 'Theorem C1')
    title = 'C1: every worker compresses its own gradient'
    return _cocoercive(title, s, 1.0, omega, problem, step_size, s.n)


def _cocoercive(
    title: str,
    s: SumForm,
    A: float,
    B: float,
    problem: Problem,
    given: float | None,
    messages: int,
    noise: str = 'workers independent',
) -> Bound:
    """Concludes from E|g|^2 <= A |grad f|^2 + B sum_i |grad f_i|^2 to a bound on V.

    D = <grad f(x), x - x*> >= mu V;  |grad f|^2 <= L_f D;  N = sum_i |grad f_i(x) - h_i|^2, with
    h_i = grad f_i(x*), is <= L_max D (cocoercivity);  sum_i |grad f_i|^2 <= 2 N + 2 G, and <= N if
    G = 0. So
    E V+ <= V - 2 gamma D + gamma^2 E|g|^2 <= V - gamma (2 - gamma Lam) D + 2 gamma^2 B G.
    """
    owner = 'Theorem ' + title.split(':')[0]
    assume.strongly_convex(owner, problem.mu, _REGULARISE)
    split = 1 if s.G == 0 else 2
    Lam = A * s.L_f + split * B * s.L_max
    eta = assume.step_size(owner, given, s.n / Lam, 2 * s.n / Lam, below=True)
    gamma = eta / s.n
    contraction = gamma * s.mu * (2 - gamma * Lam)
    floor = _times(s.G, 2 * gamma**2 * B / contraction)
    factor = 1 - contraction
    V0 = problem.known('V0')
    return Bound(title, _CONVEX + noise, 'V', eta, factor, V0, floor, messages)


def _times(G: float | None, coefficient: float) -> float | None:
    """Returns the floor, which is 0 without noise and unknown without G."""
    if coefficient == 0:
        return 0.0
    return None if G is None else G * coefficient
