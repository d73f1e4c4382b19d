"""The conclusion of sections A, B and C: from a second moment to a bound on |x - x*|^2, or on F.

Let g be unbiased, E g = grad f(x), and let D = <grad f(x), x - x*>, V = |x - x*|^2, and
N = sum_i |grad f_i(x) - h_i|^2 with h_i = grad f_i(x*). N <= L_max D by cocoercivity. Let

    E|g|^2 <= A |grad f(x)|^2 + (w / L_max) N + w0.                                            (1)

Then  E V+ <= V - 2 gamma q D + gamma^2 A |grad f|^2 + gamma^2 w0,  where q = 1 - gamma w / 2.

Strongly convex f. (mu + L) D >= mu L V + |grad f|^2, and D >= mu V. With the share
s = gamma A (mu + L) / (2 q) of D in the first and the rest in the second inequality, |grad f|^2
cancels if s <= 1, and what remains is phi(mu) V, where

    phi(l) = 1 - gamma l (2 - gamma w) + A gamma^2 l^2.

If s > 1, use all of D in the first inequality and |grad f|^2 <= L^2 V for what is left of it:
phi(L) V. Since phi(mu) >= phi(L) just where s <= 1, in both cases
E V+ <= max(phi(mu), phi(L)) V + gamma^2 w0.
A quadratic attains this with equality in (1), in its slowest and in its fastest direction.

Convex f. With p = f(x) - f*, D - p is at least |grad f|^2 / (2 L) and at least N / (2 L_max), hence
at least the mean of the two with the weights A L and w. So for Lam = A L + w,
E V+ <= V - 2 gamma p + (gamma / Lam) (gamma Lam - 1) (A |grad f|^2 + w N / L_max) + gamma^2 w0.
For gamma Lam <= 1 the third term is at most 0. Above it is at most 2 gamma (gamma Lam - 1) p,
because p too is at least that mean. Summing over k and Jensen's inequality give a bound on f.
"""

from __future__ import annotations

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem
from gradzip.theory._sum_form import SumForm


def rate(gamma: float, A: float, w: float, mu: float, L: float) -> float:
    """Returns max(phi(mu), phi(L)), which is at least 0 up to rounding."""
    ends = (1 - gamma * each * (2 - gamma * w) + A * (gamma * each) ** 2 for each in (mu, L))
    return max(0.0, *ends)


def conclude(
    title: str,
    about: str,
    s: SumForm,
    A: float,
    B: float,
    problem: Problem,
    given: float | None,
    messages: float,
    split: float,
) -> Bound:
    """Returns the bound of E|g|^2 <= A |grad f|^2 + B sum_i |grad f_i|^2.

    With h_i, sum_i |grad f_i|^2 <= (1 + split) N + (1 + 1/split) G, and it is N if G = 0.
    """
    owner = 'Theorem ' + title.split(':')[0]
    split = assume.real(owner, 'split', split, 0, above=True)
    w = (1 if s.G == 0 else 1 + split) * B * s.L_max
    largest = 2 / (A * s.L_f + w)
    # phi(mu) is least at 1 / (A mu + w), unless phi(L) is above it there
    best = min(1 / (A * s.mu + w), 2 / (A * (s.mu + s.L_f) + w)) if s.mu > 0 else largest / 2
    eta = assume.step_size(owner, given, s.n * best, s.n * largest, below=True)
    gamma = eta / s.n
    noise = _times(s.G, (1 + 1 / split) * B)
    V0 = problem.known('V0')
    if s.mu == 0:
        share = 1.0 if gamma <= largest / 2 else 2 - gamma * (A * s.L_f + w)
        initial = None if V0 is None else V0 / (2 * eta * share)
        floor = _times(noise, gamma / (2 * share * s.n))
        about = f'every f_i convex and smooth, {about}'
        return Bound(title, about, 'F_mean', eta, 1.0, initial, floor, messages)
    factor = rate(gamma, A, w, s.mu, s.L_f)
    floor = _times(noise, gamma**2 / max(1 - factor, 1e-300))
    about = f'every f_i convex and smooth, F strongly convex, {about}'
    return Bound(title, about, 'V', eta, factor, V0, floor, messages)


def _times(G: float | None, coefficient: float) -> float | None:
    """Returns the product, which is 0 without noise and unknown without G."""
    if coefficient == 0:
        return 0.0
    return None if G is None else G * coefficient
