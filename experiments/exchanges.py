"""The schemes that are compared on the network, and ranked by the plan."""

from __future__ import annotations

import optax

import gradzip as gz
from experiments import figures
from gradzip._plan.ranking import EXACT

AXIS = 'data'
FRACTION = 0.01  # of the entries, as in the literature on sparse training
LEVELS = 7  # of 4 bits
RANK = 4  # 512 times fewer entries than a matrix of 4096 x 4096

SCHEMES: dict[str, gz.Compressor | gz.Reducer] = {
    'TopK 1 %, plain indices': gz.TopK(FRACTION, indices='plain'),
    'TopK 1 %': gz.TopK(FRACTION),
    'TopK 1 % >> QSGD 4 bit': gz.TopK(FRACTION) >> gz.QSGD(LEVELS),
    'TopK 4 % >> sign': gz.TopK(0.04) >> gz.ScaledSign(),
    'QSGD 4 bit, gathered': gz.QSGD(LEVELS),
    'QSGD 4 bit, two-shot': gz.TwoShot(gz.QSGD(LEVELS)),
    'sign': gz.ScaledSign(),
    'PowerSGD rank 4': gz.PowerSGD(RANK),
}
# A memory that holds back most of a gradient acts as momentum. Adam has none behind these schemes,
# as in `gz.compressed_adam`.
MEMORY_IS_MOMENTUM = [name for name in SCHEMES if name.startswith(('TopK', 'sign'))]
# In training only: the workers exchange what so many steps of their own add up to.
LOCAL_STEPS = 4
LOCAL = f'{LOCAL_STEPS} local steps, TopK 1.3 % >> sign'
LOCAL_SCHEME = gz.TopK(0.013) >> gz.ScaledSign()
PERIODS = {LOCAL: LOCAL_STEPS}  # one step of so many exchanges something
COLORS = dict(
    zip(
        [EXACT, *SCHEMES, LOCAL],
        (
            figures.GREY, figures.ORANGE, figures.VERMILION, figures.PINK, figures.WINE,
            figures.SKY, figures.BLUE, figures.GREEN, figures.INDIGO, 'black',
        ),
        strict=True,
    )
)  # fmt: skip


def exchange(name: str) -> optax.GradientTransformation:
    """The exact mean, or a scheme with a memory.

    TopK selects among the entries of all leaves together, which compiles sooner and takes less time
    on CPU than a selection in each leaf.
    """
    if name == EXACT:
        return gz.compress(gz.Identity(), AXIS)
    with_memory = gz.error_feedback(SCHEMES[name], AXIS, key=0)
    return optax.flatten(with_memory) if name.startswith('TopK') else with_memory


def adam_after_memory(rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Adam as `gz.compressed_adam` has it behind a memory: without momentum."""
    return optax.adam(rate, b1=0.0, b2=0.99)


def local_adam(
    rate: optax.ScalarOrSchedule, scheme: gz.types.Scheme, axis: str, steps: int
) -> optax.GradientTransformation:
    """Local steps of Adam without momentum, a compressed exchange, and another Adam outside.

    Args:
      rate: of the workers' steps. Each outer step moves an entry as far as `2 * steps` of these.
      scheme: what the workers exchange, with a memory.
      axis: of the workers.
      steps: between two exchanges.
    """
    at = rate if callable(rate) else lambda count: rate
    return gz.local_steps(
        adam_after_memory(rate),
        gz.error_feedback(scheme, axis),
        optax.adam(lambda count: 2 * steps * at(steps * (count + 1)), b1=0.0, b2=0.95),
        axis,
        sync_every=steps,
    )


def chosen(only: list[str] | None, *others: str) -> list[str]:
    """The exact mean, with which all others are compared, and those asked for, or all.

    Args:
      only: the names that were asked for; None for all.
      others: names beside those of the schemes.

    Raises:
      ValueError: an unknown name.
    """
    known = [EXACT, *SCHEMES, *others]
    unknown = [name for name in only or () if name not in known]
    if unknown:
        raise ValueError(f'--scheme: {unknown} unknown. Choose from {known}.')
    return list(dict.fromkeys([EXACT, *(only or known)]))
