"""THE table: every compressor, reducer and transformation, and what each promises.

The laws, the contracts, the parity of the mappers and the byte counts run over it. Whoever adds an
algorithm adds a row here, and nothing else in the tests.
"""

from collections.abc import Callable
from typing import NamedTuple

import optax

import gradzip as gz

# name -> compressor. Between them they cover what a class can be: linear or not, random or not,
# unbiased or contractive, one scale or many, codes of 1, 2, 3, 4, 8 bits, composed once and twice.
COMPRESSORS: dict[str, gz.Compressor] = {
    'identity': gz.Identity(),
    'topk': gz.TopK(0.1),
    'topk plain': gz.TopK(0.1, indices='plain'),
    'topk all': gz.TopK(1.0),
    'blocktopk': gz.BlockTopK(3, 16),
    'threshold': gz.Threshold(0.4, capacity=0.3),
    'energy': gz.Energy(0.6, capacity=0.7),
    'dct': gz.DCT(gz.BlockTopK(3, 16), 16),
    'induced': gz.Induced(gz.TopK(0.1), gz.QSGD(7)),
    'randk': gz.RandK(0.2),
    'randblock': gz.RandBlock(0.3),
    'bernoulli': gz.Bernoulli(0.2),
    'qsgd 4 bits': gz.QSGD(7),
    'qsgd 3 bits': gz.QSGD(3, block=8),
    'qsgd 8 bits': gz.QSGD(127, block=64),
    'qsgd l2': gz.QSGD(4, block=None, norm='l2'),
    'ternary l2': gz.Ternary('l2'),
    'ternary max': gz.Ternary('max'),
    'scaled sign': gz.ScaledSign(),
    'natural': gz.Natural(),
    'one bit': gz.OneBit(),
    'int nearest': gz.Int(4, rounding='nearest'),
    'cast': gz.Cast('float8_e4m3fn'),
    'rotated': gz.Rotated(gz.QSGD(7)),
    'eden': gz.EDEN(2),
    'weighted bernoulli': gz.WeightedBernoulli(0.2),
    'topk >> qsgd': gz.TopK(0.1) >> gz.QSGD(7),
    'topk >> sign': gz.TopK(0.1) >> gz.ScaledSign(),
    'randk >> qsgd': gz.RandK(0.2) >> gz.QSGD(7),
    'bernoulli >> ternary': gz.Bernoulli(0.5) >> gz.Ternary('max'),
    'topk >> randk >> sign': gz.TopK(0.5) >> gz.RandK(0.5) >> gz.ScaledSign(),
}

CAP = 601  # room for the values of Bernoulli(0.5) on 1000 entries

# What each states for a leaf of 1000 entries: (omega, delta), worked out by hand from the papers.
CONSTANTS: dict[str, tuple[float | None, float | None]] = {
    'identity': (0.0, 1.0),
    'topk': (None, 0.1),
    'topk plain': (None, 0.1),
    'topk all': (None, 1.0),
    'blocktopk': (None, 3 / 16),
    'threshold': (None, 1 / (1 + 999 * 0.4**2)),
    'energy': (None, 0.6),
    'dct': (None, 3 / 16),
    'induced': (0.9 * 255**0.5 / 14, None),
    'randk': (4.0, None),
    'randblock': (3.0, None),  # four blocks of 300, the last one short
    'bernoulli': (4.0, None),
    'qsgd 4 bits': (255**0.5 / 14, None),
    'qsgd 3 bits': (7 / 36, None),
    'qsgd 8 bits': (63 / (4 * 127**2), None),
    'qsgd l2': (1000**0.5 / 4, None),
    'ternary l2': (1000**0.5 - 1, None),
    'ternary max': ((1000**0.5 - 1) / 2, None),
    'scaled sign': (None, 0.001),
    'natural': (1 / 8, None),
    'one bit': (None, 0.001),
    'int nearest': (None, 1 / (1 + 63 / 196)),
    'cast': (None, 1 - 2**-8 - 1000 * 2**-26),
    'rotated': (255**0.5 / 14, None),  # 1024 entries with the padding
    'eden': (None, None),
    'weighted bernoulli': (4.0, None),
    'topk >> qsgd': (None, 0.1 * (1 - 99 / 196)),  # 100 values in one block
    'topk >> sign': (None, 0.1 / 100),
    'randk >> qsgd': (5 * (1 + 199**0.5 / 14) - 1, None),  # 200 values in one block
    'bernoulli >> ternary': (2 * (1 + (CAP**0.5 - 1) / 2) - 1, None),
    'topk >> randk >> sign': (None, None),
}

# What each sends of a leaf of 100 000 entries: bits an entry, by its description.
BITS: dict[str, float] = {
    'identity': 32,
    'topk': 0.1 * (32 + 5.25),
    'topk plain': 0.1 * 64,
    'topk all': 33,
    'blocktopk': 3 / 16 * (32 + 4),
    'threshold': 0.3 * 32 + 1,
    'energy': 0.7 * 32 + 1,
    'dct': 3 / 16 * (32 + 4),
    'induced': 0.1 * (32 + 5.25) + 4 + 32 / 256,
    'randk': 0.2 * 32,
    'randblock': 0.3 * 32,
    'bernoulli': 0.2 * 32 * 1.045,
    'qsgd 4 bits': 4 + 32 / 256,
    'qsgd 3 bits': 3 + 32 / 8,
    'qsgd 8 bits': 8 + 32 / 64,
    'qsgd l2': 4,
    'ternary l2': 2,
    'ternary max': 2,
    'scaled sign': 1,
    'topk >> qsgd': 0.1 * (5.25 + 4 + 32 / 256),
    'topk >> sign': 0.1 * (5.25 + 1),
    'natural': 9,
    'one bit': 1,
    'int nearest': 4 + 32 / 64,
    'cast': 8,
    'rotated': (4 + 32 / 256) * 1.024,  # 25 blocks of 4096
    'eden': (2 + 32 / 4096) * 1.024,
    'weighted bernoulli': 0.2 * 36.2 * 1.046,
    'randk >> qsgd': 0.2 * (4 + 32 / 256),
    'bernoulli >> ternary': 0.5 * 2 * 1.02,
    'topk >> randk >> sign': 1 + 0.25,  # half of all: a bit for every entry
}

# Further settings of a class, and of what is composed: other laws as compressors, but the same way
# over a wire and into a state as those that are named above.
SETTINGS = (
    *('topk all', 'qsgd 3 bits', 'qsgd 8 bits', 'qsgd l2', 'ternary l2', 'topk >> sign'),
    *('bernoulli >> ternary', 'topk >> randk >> sign'),
)

REDUCERS: dict[str, gz.Reducer] = {
    **{f'gather {name}': gz.Gather(c) for name, c in COMPRESSORS.items() if name not in SETTINGS},
    **{f'sum {name}': gz.Sum(c) for name, c in COMPRESSORS.items() if c.linear},
    'powersgd': gz.PowerSGD(2, min_rate=1),
    'two shot qsgd': gz.TwoShot(gz.QSGD(7)),
    'schedule': gz.Schedule((gz.Identity(), gz.PowerSGD(2, min_rate=1), gz.TopK(0.2)), (3, 7)),
    'two shot topk, sign': gz.TwoShot(gz.TopK(0.5), gz.ScaledSign()),
}


class Transformation(NamedTuple):
    """How to make it for an axis (None for one worker), and what it does to the axis."""

    make: Callable[[str | None], optax.GradientTransformation]
    exchanges: bool = True  # updates are the same on every worker afterwards
    needs_axis: bool = False


def _routed(leaf) -> gz.Compressor | gz.Reducer:
    return gz.PowerSGD(2) if leaf.ndim == 2 else gz.TopK(0.5) if leaf.size > 2 else gz.Identity()


TRANSFORMATIONS: dict[str, Transformation] = {
    **{
        f'{verb.__name__} {name}': Transformation(
            lambda axis, verb=verb, reducer=reducer: verb(reducer, axis, key=0)
        )
        for verb, reducers in (
            (gz.compress, REDUCERS),
            (gz.error_feedback, REDUCERS),
            (gz.ef21, {k: REDUCERS[k] for k in ('gather topk', 'sum randk', 'powersgd')}),
        )
        for name, reducer in reducers.items()
    },
    'routed': Transformation(lambda axis: gz.error_feedback(_routed, axis)),
    'measured': Transformation(
        lambda axis: gz.error_feedback(
            gz.TopK(0.2),
            axis,
            metrics={
                name: getattr(gz.metrics, name) for name in ('lost', 'cosine', 'norm', 'nonzeros')
            },
        )
    ),
    'decayed': Transformation(lambda axis: gz.error_feedback(gz.TopK(0.2), axis, decay=0.9)),
    'delay constant': Transformation(lambda axis: gz.delay(3, axis), exchanges=False),
    'delay uniform': Transformation(
        lambda axis: gz.delay(gz.Uniform(3), axis, key=1), exchanges=False
    ),
    'stale and compressed': Transformation(
        lambda axis: optax.chain(
            gz.delay(2, axis), gz.error_feedback(gz.QSGD(7), axis, key=0), gz.compress(gz.TopK(0.5))
        )
    ),
    'per_worker': Transformation(
        lambda axis: optax.chain(
            gz.per_worker(optax.trace(0.9), axis), gz.ef21(gz.TopK(0.2), axis)
        ),
        needs_axis=True,
    ),
    'participate': Transformation(
        lambda axis: optax.chain(gz.participate(2, axis, key=0), gz.compress(gz.Identity(), axis)),
        needs_axis=True,
    ),
    'iag cyclic': Transformation(lambda axis: gz.iag(gz.QSGD(7), axis, gz.Cyclic(4), key=0)),
    'iag uniform': Transformation(
        lambda axis: gz.iag(gz.Bernoulli(0.5), axis, gz.Uniform(2), key=0)
    ),
    'delay cyclic': Transformation(lambda axis: gz.delay(gz.Cyclic(3), axis), exchanges=False),
    'every': Transformation(
        lambda axis: gz.every(
            optax.chain(gz.error_feedback(gz.TopK(0.2), axis), optax.sgd(1.0)), 3, axis
        )
    ),
    'skip_nonfinite': Transformation(
        lambda axis: gz.skip_nonfinite(gz.error_feedback(gz.TopK(0.2), axis), axis)
    ),
}
