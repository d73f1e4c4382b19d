"""The exchanges that are compared on the network, and ranked by the plan."""

from __future__ import annotations

import optax

import gradzip as gz

AXIS = 'data'
FRACTION = 0.01  # of the entries, as in the literature on sparse training
LEVELS = 7  # of 4 bits
RANK = 4  # 512 times fewer entries than a matrix of 4096 x 4096

EXACT = 'exact mean'
COLORS = ('0.3', '#E69F00', '#D55E00', '#CC79A7', '#56B4E9', '#0072B2', '#009E73', '#F0E442')


def schemes() -> dict[str, optax.GradientTransformation]:
    """Name to exchange; all but the exact mean with a memory."""

    def remembered(scheme: gz.Compressor | gz.Reducer) -> optax.GradientTransformation:
        return gz.error_feedback(scheme, AXIS, key=0)

    return {
        EXACT: gz.compress(gz.Identity(), AXIS),
        'TopK 1 %, plain indices': remembered(gz.TopK(FRACTION, indices='plain')),
        'TopK 1 %': remembered(gz.TopK(FRACTION)),
        'TopK 1 % >> QSGD 4 bit': remembered(gz.TopK(FRACTION) >> gz.QSGD(LEVELS)),
        'QSGD 4 bit, gathered': remembered(gz.QSGD(LEVELS)),
        'QSGD 4 bit, two-shot': remembered(gz.TwoShot(gz.QSGD(LEVELS))),
        'sign': remembered(gz.ScaledSign()),
        'PowerSGD rank 4': remembered(gz.PowerSGD(RANK)),
    }


def color_of(scheme: str) -> str:
    """The same in every figure."""
    return COLORS[list(schemes()).index(scheme) % len(COLORS)]


def chosen(only: list[str] | None) -> list[str]:
    """The exact mean, with which all others are compared, and those asked for, or all.

    Raises:
      ValueError: a name that is none.
    """
    known = list(schemes())
    unknown = [name for name in only or () if name not in known]
    if unknown:
        raise ValueError(f'--scheme: {unknown} unknown. Choose from {known}.')
    return list(dict.fromkeys([EXACT, *(only or known)]))
