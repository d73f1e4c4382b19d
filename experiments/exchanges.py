"""The exchanges that are compared on the network, and ranked by the plan."""

from __future__ import annotations

import optax

import gradzip as gz

AXIS = 'data'
FRACTION = 0.01  # of the entries, as in the literature on sparse training
LEVELS = 7  # of 4 bits
RANK = 4  # 512 times fewer entries than a matrix of 4096 x 4096

EXACT = 'exact mean'


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
