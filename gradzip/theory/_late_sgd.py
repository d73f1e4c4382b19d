"""Steps of SGD on noisy gradients that are late, one theorem for all protocols of `_time`.

    x_{k+1} = x_k - gamma g_k,  g_k the mean of b gradients, each at one of x_{k-tau}, ..., x_k
    (1/K) sum_{k<K} E |grad F(x_k)|^2 <= 2 F0 / (gamma K) + s2 (L gamma + 2 L^2 gamma^2 tau)
    if  L gamma + 2 L^2 gamma^2 tau^2 <= 1,   s2 = variance / b

Proof: g_k = gbar_k + xi_k, where gbar_k is the mean of b true gradients at late iterates y, and the
xi_k are martingale differences with E |xi_k|^2 <= s2. As F is L-smooth,
    E F(x_{k+1}) <= F(x_k) - gamma/2 |grad F(x_k)|^2 - gamma/2 (1 - L gamma) |gbar_k|^2
                    + gamma/2 |gbar_k - grad F(x_k)|^2 + L gamma^2/2 s2,
and |gbar_k - grad F(x_k)|^2 is at most L^2 times the mean of |y - x_k|^2, which is at most
2 gamma^2 (tau sum_{l=k-tau}^{k-1} |gbar_l|^2 + tau s2). In the sum over k, every |gbar_l|^2 comes
at most tau times. As in T1, delays must not depend on the noise; times do not.
"""

from __future__ import annotations

import dataclasses
import math

from gradzip.theory import _assume as assume

ROUNDING = 1e-12  # relative; a number of steps may be above an integer by so much


@dataclasses.dataclass(frozen=True)
class Target:
    """A smooth loss with noisy gradients, and how small its gradient has to become.

    Args:
      L: smoothness of F, which need not be convex.
      F0: F(x_0) - inf F.
      variance: E |g - grad F|^2 of one gradient of one worker, at most.
      eps: the mean of E |grad F(x_k)|^2 over the steps has to be at most this.

    Raises:
      ValueError: L, F0 or eps is not above 0, or the variance is negative.
      TypeError: an argument is not a number.

    Example:
      >>> from gradzip import theory
      >>> theory.Target(L=1.0, F0=1.0, variance=2.0, eps=0.5).batch
      4
    """

    L: float
    F0: float
    variance: float
    eps: float

    def __post_init__(self) -> None:
        for name in ('L', 'F0', 'eps'):
            assume.real('Target', name, getattr(self, name), 0, above=True)
        assume.real('Target', 'variance', self.variance, 0)

    @property
    def batch(self) -> int:
        """How many gradients make the noise of a step as small as eps: Rennala's and Ringmaster's
        constant, max(1, ceil(variance / eps)).
        """
        return max(1, math.ceil(self.variance / self.eps))


def late_sgd(target: Target, tau: int, *, batch: int = 1) -> tuple[float, int]:
    """The step size and the steps of SGD on noisy gradients that are up to tau steps late.

    Args:
      target: the loss, the noise and the accuracy.
      tau: the longest delay in steps, at least 0.
      batch: gradients in a step, at least 1.

    Returns:
      The step size, and after how many steps the target is reached.

    Raises:
      ValueError: tau is negative, or batch below 1.
      TypeError: an argument is of another kind.

    Example:
      >>> from gradzip import theory
      >>> target = theory.Target(L=1.0, F0=1.0, variance=1.0, eps=0.1)
      >>> theory.late_sgd(target, 0), theory.late_sgd(target, 0, batch=10)
      ((0.05, 800), (0.5, 80))

    Reference: of the form in Koloskova, Stich, Jaggi, arXiv 2206.08307; the theorem above is
      derived here.
    """
    tau = assume.integer('late_sgd', 'tau', tau, 0)
    batch = assume.integer('late_sgd', 'batch', batch, 1)
    L, s2 = target.L, target.variance / batch
    gamma = assume.positive_root(2 * L**2 * tau**2, L)
    share = 2 * s2 / target.eps  # half of eps for the noise
    if share > 0:
        gamma = min(gamma, assume.positive_root(share * 2 * L**2 * tau, share * L))
    noise = s2 * (L * gamma + 2 * L**2 * gamma**2 * tau)
    return gamma, math.ceil(2 * target.F0 / (gamma * (target.eps - noise)) * (1 - ROUNDING))
