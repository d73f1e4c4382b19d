"""The table of everything that the tests run over: one row for each algorithm.

A row holds a compressor, a reducer, a delay model or a function that makes a transformation, and
what it promises. The laws, the contracts, the traps, the mappers, the byte counts and the errors
follow from the rows. A new algorithm needs its file, its line in `gradzip/__init__.py` and a row
here; `test_zoo.py` fails without the row.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest

import gradzip as gz

Make = Callable[[str | None], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class Row:
    """One algorithm with the constants that it must state and the tests that it goes through.

    Args:
      scheme: a compressor, a reducer, a delay model, or a function from the name of an axis (None
        for one worker) to a transformation.
      omega: of a compressor, for a leaf of 1000 entries, worked out by hand from the paper; None if
        it must state none.
      delta: the same for its contraction.
      bits: of a compressor, sent for each entry of a leaf of 100 000, from its description.
      variant: a compressor with another setting or composition, which passes the laws for
        compressors, but travels and is remembered as another row; or a delay model, whose delays
        are tested, but which leaves as many gradients in a state as another row.
      representative: stands for the rows of the same structure in tests that compile for long, such
        as training under every mapper.
      exchanges: the updates of a transformation are the same on every worker.
      needs_axis: a transformation that does not exist for one worker.
    """

    scheme: Any
    omega: float | None = None
    delta: float | None = None
    bits: float | None = None
    variant: bool = False
    representative: bool = False
    exchanges: bool = True
    needs_axis: bool = False


def _routed(leaf) -> gz.Compressor | gz.Reducer:
    return gz.PowerSGD(2) if leaf.ndim == 2 else gz.TopK(0.5) if leaf.size > 2 else gz.Identity()


def half_of_gradients_as_previous(
    tx: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformation:
    """`marina` where the gradient at the last point is half of this one, for want of a loss."""

    def update(updates, state, params=None):
        previous = jax.tree.map(lambda g: g * 0.5, updates)
        return tx.update(updates, state, params, previous_grads=previous)

    return optax.GradientTransformation(tx.init, update)


def with_diagonal(tx: optax.GradientTransformationExtraArgs) -> optax.GradientTransformation:
    """`hessian_feedback` where the diagonal of the Hessian is the gradient, for want of a loss."""

    def update(updates, state, params=None):
        return tx.update(updates, state, params, hessian_diagonal=updates)

    return optax.GradientTransformation(tx.init, update)


def on_a_parabola(tx: optax.GradientTransformationExtraArgs) -> optax.GradientTransformation:
    """A line search on the loss with this worker's gradient and the Hessian of the identity."""

    def update(updates, state, params=None):
        def value_fn(moved):
            apart = jax.tree.map(lambda m, p, u: (m - p).astype(u.dtype), moved, params, updates)
            return optax.tree.vdot(updates, apart) + optax.tree.norm(apart, squared=True) / 2

        return tx.update(updates, state, params, value_fn=value_fn)

    return optax.GradientTransformation(tx.init, update)


TEN = jax.ShapeDtypeStruct((10,), 'float32')
CAPACITY = 601  # the places in a payload of Bernoulli(0.5) for 1000 entries

ROWS: dict[str, Row] = {
    # Compressors.
    'identity': Row(gz.Identity(), omega=0.0, delta=1.0, bits=32),
    'topk': Row(gz.TopK(0.1), delta=0.1, bits=0.1 * (32 + 5.25), representative=True),
    'topk plain': Row(gz.TopK(0.1, indices='plain'), delta=0.1, bits=0.1 * 64),
    'topk all': Row(gz.TopK(1.0), delta=1.0, bits=33, variant=True),
    'blocktopk': Row(gz.BlockTopK(3, 16), delta=3 / 16, bits=3 / 16 * (32 + 4)),
    # one whole tile of the 1000 entries, and the rest
    'columnmax': Row(gz.ColumnMax(4), delta=1 / 4, bits=1 / 4 * (32 + 2)),
    'threshold': Row(
        gz.Threshold(0.4, capacity=0.3), delta=1 / (1 + 999 * 0.4**2), bits=0.3 * 32 + 1
    ),
    'energy': Row(gz.Energy(0.6, capacity=0.7), delta=0.6, bits=0.7 * 32 + 1),
    'dct': Row(gz.DCT(gz.BlockTopK(3, 16), 16), delta=3 / 16, bits=3 / 16 * (32 + 4)),
    'induced': Row(
        gz.Induced(gz.TopK(0.1), gz.QSGD(7)),
        omega=0.9 * 255**0.5 / 14,
        bits=0.1 * (32 + 5.25) + 4 + 32 / 256,
    ),
    'randk': Row(gz.RandK(0.2), omega=4.0, bits=0.2 * 32),
    # four blocks of 300 entries, the last one short
    'randblock': Row(gz.RandBlock(0.3), omega=3.0, bits=0.3 * 32),
    'bernoulli': Row(gz.Bernoulli(0.2), omega=4.0, bits=0.2 * 32 * 1.045, representative=True),
    'qsgd 4 bits': Row(gz.QSGD(7), omega=255**0.5 / 14, bits=4 + 32 / 256, representative=True),
    'qsgd 3 bits': Row(gz.QSGD(3, block=8), omega=7 / 36, bits=3 + 32 / 8, variant=True),
    'qsgd 8 bits': Row(
        gz.QSGD(127, block=64), omega=63 / (4 * 127**2), bits=8 + 32 / 64, variant=True
    ),
    'qsgd l2': Row(gz.QSGD(4, block=None, norm='l2'), omega=1000**0.5 / 4, bits=4, variant=True),
    'ternary l2': Row(gz.Ternary('l2'), omega=1000**0.5 - 1, bits=2, variant=True),
    'ternary max': Row(gz.Ternary('max'), omega=(1000**0.5 - 1) / 2, bits=2),
    'scaled sign': Row(gz.ScaledSign(), delta=0.001, bits=1),
    'natural': Row(gz.Natural(), omega=1 / 8, bits=9),
    'one bit': Row(gz.OneBit(), delta=0.001, bits=1),
    'int nearest': Row(gz.Int(4, rounding='nearest'), delta=1 / (1 + 63 / 196), bits=4 + 32 / 64),
    'cast': Row(gz.Cast('float8_e4m3fn'), delta=1 - 2**-8 - 1000 * 2**-26, bits=8),
    # 1024 entries with the padding; 25 blocks of 4096 for the leaf of 100 000
    'rotated': Row(gz.Rotated(gz.QSGD(7)), omega=255**0.5 / 14, bits=(4 + 32 / 256) * 1.024),
    'eden': Row(gz.EDEN(2), bits=(2 + 32 / 4096) * 1.024),
    'weighted bernoulli': Row(gz.WeightedBernoulli(0.2), omega=4.0, bits=0.2 * 36.2 * 1.046),
    # 100 values in one block
    'topk >> qsgd': Row(
        gz.TopK(0.1) >> gz.QSGD(7),
        delta=0.1 * (1 - 99 / 196),
        bits=0.1 * (5.25 + 4 + 32 / 256),
    ),
    'topk >> sign': Row(
        gz.TopK(0.1) >> gz.ScaledSign(), delta=0.1 / 100, bits=0.1 * (5.25 + 1), variant=True
    ),
    # 200 values in one block
    'randk >> qsgd': Row(
        gz.RandK(0.2) >> gz.QSGD(7),
        omega=5 * (1 + 199**0.5 / 14) - 1,
        bits=0.2 * (4 + 32 / 256),
        variant=True,
    ),
    'bernoulli >> ternary': Row(
        gz.Bernoulli(0.5) >> gz.Ternary('max'),
        omega=2 * (1 + (CAPACITY**0.5 - 1) / 2) - 1,
        bits=0.5 * 2 * 1.02,
        variant=True,
    ),
    # half of all entries: the indices are one bit for every entry
    'topk >> randk >> sign': Row(
        gz.TopK(0.5) >> gz.RandK(0.5) >> gz.ScaledSign(), bits=1 + 0.25, variant=True
    ),
    # Reducers. Gather of every compressor and Sum of every linear one follow below.
    'powersgd': Row(gz.PowerSGD(2, min_rate=1), representative=True),
    'acpsgd': Row(gz.ACPSGD(2, min_rate=1)),
    'two shot qsgd': Row(gz.TwoShot(gz.QSGD(7)), representative=True),
    'two shot topk, sign': Row(gz.TwoShot(gz.TopK(0.5), gz.ScaledSign())),
    'schedule': Row(
        gz.Schedule((gz.Identity(), gz.PowerSGD(2, min_rate=1), gz.TopK(0.2)), (3, 7)),
        representative=True,
    ),
    'cat': Row(gz.CAT((0.1, 0.3), overhead=200)),
    # Delay models. `delay` and `iag` with those that are no variants follow below.
    'constant': Row(gz.Constant(3)),
    'uniform': Row(gz.Uniform(3), representative=True),
    'cyclic': Row(gz.Cyclic(3)),
    'burst': Row(gz.Burst(4), variant=True),
    'geometric': Row(gz.Geometric(0.4, bound=3), variant=True),
    'straggler': Row(gz.Straggler(0.3, 3), variant=True),
    # of eight workers, as many as any test has
    'fixed': Row(gz.Fixed((0, 3, 2, 1, 3, 0, 1, 2)), variant=True),
    'trace': Row(gz.Trace(np.arange(5 * 8).reshape(5, 8) ** 2 % 7 % 4), representative=True),
    # Transformations.
    'routed': Row(lambda axis: gz.error_feedback(_routed, axis), representative=True),
    'measured': Row(
        lambda axis: gz.error_feedback(
            gz.TopK(0.2),
            axis,
            metrics={
                name: getattr(gz.metrics, name)
                for name in ('lost', 'cosine', 'norm', 'nonzeros', 'error_norm', 'staleness')
            }
            | {'bits': gz.metrics.total(gz.metrics.bits(gz.TopK(0.2), TEN))},
        )
    ),
    'mean over senders': Row(
        lambda axis: gz.compress(gz.Gather(gz.TopK(0.2), mean_over='senders'), axis)
    ),
    'decayed': Row(lambda axis: gz.error_feedback(gz.TopK(0.2), axis, decay=0.9)),
    'dropped': Row(lambda axis: gz.error_feedback(gz.TopK(0.2), axis, decay=0.999, drop=0.05)),
    'hessian feedback': Row(
        lambda axis: with_diagonal(gz.hessian_feedback(gz.TopK(0.2), axis, step_size=0.1))
    ),
    'ef21 with momentum': Row(lambda axis: gz.ef21(gz.TopK(0.2), axis, momentum=0.1)),
    'dgc': Row(lambda axis: gz.dgc(gz.TopK(0.2), axis, nesterov=True, clip=0.5)),
    'econtrol': Row(lambda axis: gz.econtrol(gz.TopK(0.2), axis, eta=0.2)),
    'diana': Row(lambda axis: gz.diana(gz.Gather(gz.RandK(0.2)), axis, key=0)),
    'marina': Row(
        lambda axis: half_of_gradients_as_previous(gz.marina(gz.Gather(gz.RandK(0.2)), axis, key=0))
    ),
    'one-bit adam': Row(
        lambda axis: optax.chain(
            gz.shared_momentum(
                gz.error_feedback(gz.Schedule((gz.Identity(), gz.ScaledSign()), (2,)), axis), 0.9
            ),
            gz.scale_by_frozen_adam(2),
        )
    ),
    'int8 memory': Row(
        lambda axis: gz.error_feedback(gz.TopK(0.2), axis, memory_dtype='int8', key=0)
    ),
    'int8 delay': Row(
        lambda axis: gz.delay(gz.Cyclic(3), axis, memory_dtype='int8', key=1), exchanges=False
    ),
    'compensated': Row(
        lambda axis: optax.chain(
            gz.delay(gz.Uniform(3), axis, key=1),
            gz.compensate(gz.Uniform(3), axis, decay=0.9, key=1),
            gz.compress(gz.Identity(), axis),
        )
    ),
    'scaled by delay': Row(
        lambda axis: optax.chain(
            gz.delay(gz.Uniform(3), axis, key=1),
            gz.compress(gz.Identity(), axis),
            gz.scale_by_delay(gz.delay_rules.Adaptive1(), gz.Uniform(3), axis, key=1),
        )
    ),
    'line search': Row(
        lambda axis: on_a_parabola(
            optax.chain(gz.compress(gz.TopK(0.2), axis), gz.scale_by_newton_linesearch(axis))
        )
    ),
    'two-sided': Row(
        lambda axis: optax.chain(
            gz.error_feedback(gz.TopK(0.2), axis), gz.error_feedback(gz.ScaledSign())
        )
    ),
    'stale and compressed': Row(
        lambda axis: optax.chain(
            gz.delay(2, axis), gz.error_feedback(gz.QSGD(7), axis, key=0), gz.compress(gz.TopK(0.5))
        ),
        representative=True,
    ),
    'per_worker': Row(
        lambda axis: optax.chain(
            gz.per_worker(optax.trace(0.9), axis), gz.ef21(gz.TopK(0.2), axis)
        ),
        needs_axis=True,
        representative=True,
    ),
    'participate': Row(
        lambda axis: optax.chain(gz.participate(2, axis, key=0), gz.compress(gz.Identity(), axis)),
        needs_axis=True,
        representative=True,
    ),
    'every': Row(
        lambda axis: gz.every(
            optax.chain(gz.error_feedback(gz.TopK(0.2), axis), optax.sgd(1.0)), 3, axis
        ),
        representative=True,
    ),
    'local_steps': Row(
        lambda axis: gz.local_steps(
            optax.sgd(0.5),
            gz.error_feedback(gz.TopK(0.2), axis),
            optax.sgd(0.7),
            axis,
            sync_every=2,
        ),
        representative=True,
    ),
    'zero_one_adam': Row(
        lambda axis: gz.zero_one_adam(
            0.1, gz.error_feedback(gz.ScaledSign(), axis), axis, warmup=2, double_every=1
        )
    ),
    'skip_nonfinite': Row(
        lambda axis: gz.skip_nonfinite(gz.error_feedback(gz.TopK(0.2), axis), axis),
        representative=True,
    ),
}


def rows_of(kind: type) -> dict[str, Row]:
    """The rows whose scheme is of a class."""
    return {name: row for name, row in ROWS.items() if isinstance(row.scheme, kind)}


def _reducer_rows() -> dict[str, Row]:
    compressors = rows_of(gz.Compressor).items()
    gathers = {
        f'gather {name}': Row(
            gz.Gather(row.scheme), representative=row.representative and not row.scheme.linear
        )
        for name, row in compressors
        if not row.variant
    }
    sums = {
        f'sum {name}': Row(gz.Sum(row.scheme), representative=row.representative)
        for name, row in compressors
        if row.scheme.linear
    }
    return gathers | sums | rows_of(gz.Reducer)


def _exchange(verb: Callable, scheme: gz.Reducer) -> Make:
    return lambda axis: verb(scheme, axis, key=0)


def _transformation_rows(reducers: dict[str, Row]) -> dict[str, Row]:
    """Every reducer under every verb, models under `delay` and `iag`, and the rest."""
    rows = {}
    for name, row in reducers.items():
        rows[f'compress {name}'] = Row(_exchange(gz.compress, row.scheme))
        rows[f'error_feedback {name}'] = Row(
            _exchange(gz.error_feedback, row.scheme), representative=row.representative
        )
        if row.representative:  # what EF21 remembers does not depend on the reducer
            rows[f'ef21 {name}'] = Row(
                _exchange(gz.ef21, row.scheme), representative=name == 'powersgd'
            )
    for name, row in rows_of(gz.Delay).items():
        model = row.scheme
        if row.variant:
            continue
        rows[f'delay {name}'] = Row(
            lambda axis, model=model: gz.delay(model, axis, key=1),
            exchanges=False,
            representative=row.representative,
        )
        rows[f'iag {name}'] = Row(
            lambda axis, model=model: gz.iag(gz.QSGD(7), axis, model, key=0),
            representative=row.representative and model.random,
        )
    kinds = gz.Compressor | gz.Reducer | gz.Delay
    return rows | {n: row for n, row in ROWS.items() if not isinstance(row.scheme, kinds)}


REDUCER_ROWS = _reducer_rows()
TRANSFORMATIONS = _transformation_rows(REDUCER_ROWS)
COMPRESSORS: dict[str, gz.Compressor] = {n: r.scheme for n, r in rows_of(gz.Compressor).items()}
REDUCERS: dict[str, gz.Reducer] = {n: r.scheme for n, r in REDUCER_ROWS.items()}
DELAYS: dict[str, gz.Delay] = {n: r.scheme for n, r in rows_of(gz.Delay).items()}


def slow_unless_representative(rows: dict[str, Row]) -> list:
    """The names of all rows, as parameters of a test; CI alone runs those of the others."""
    return [
        pytest.param(name, marks=() if row.representative else pytest.mark.slow)
        for name, row in rows.items()
    ]


def representatives(rows: dict[str, Row]) -> dict[str, Row]:
    """The rows that stand for others."""
    return {name: row for name, row in rows.items() if row.representative}
