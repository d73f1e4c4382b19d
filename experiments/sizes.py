"""What every compressor sends of a million float32 entries, and what it promises.

`python -m experiments.sizes` prints the README's table. Bytes are counted on the traced exchange,
padding included; the same figures are asserted on the compiled programs in tests/test_bytes.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

import gradzip as gz

ENTRIES = 1_000_000  # large enough that padding to 512 bytes does not show
SCHEMES = {
    'Identity()': gz.Identity(),
    'TopK(0.01)': gz.TopK(0.01),
    "TopK(0.01, indices='plain')": gz.TopK(0.01, indices='plain'),
    'BlockTopK(10, block=1024)': gz.BlockTopK(10, block=1024),
    'Threshold(0.5, capacity=0.01)': gz.Threshold(0.5, capacity=0.01),
    'Energy(0.1, capacity=0.02)': gz.Energy(0.1, capacity=0.02),
    'RandK(0.01)': gz.RandK(0.01),
    'Bernoulli(0.01)': gz.Bernoulli(0.01),
    'QSGD(levels=7)': gz.QSGD(levels=7),
    "Ternary('l2')": gz.Ternary('l2'),
    "Ternary('max')": gz.Ternary('max'),
    'ScaledSign()': gz.ScaledSign(),
    'TopK(0.01) >> QSGD(levels=7)': gz.TopK(0.01) >> gz.QSGD(levels=7),
    'DCT(BlockTopK(4, 64), 64)': gz.DCT(gz.BlockTopK(4, 64), 64),
    'Induced(TopK(0.01), QSGD(levels=7))': gz.Induced(gz.TopK(0.01), gz.QSGD(levels=7)),
    'PowerSGD(rank=4)': gz.PowerSGD(rank=4),
}


def rows() -> list[str]:
    """The table in Markdown."""
    lines = [
        '| scheme | bytes a step | times less | omega (unbiased) | delta (under a memory) |',
        '|---|---:|---:|---:|---:|',
    ]
    for name, scheme in SCHEMES.items():
        shape = (1000, 1000) if isinstance(scheme, gz.Reducer) else (ENTRIES,)
        like = jax.ShapeDtypeStruct(shape, jnp.float32)
        size = gz.payload_bytes(scheme, like)
        omega = delta = None
        if isinstance(scheme, gz.Compressor):
            omega, delta = scheme.omega(like), scheme.contractive().delta(like)
        shown = ['-' if value is None else f'{value:.3g}' for value in (omega, delta)]
        times = f'{4 * ENTRIES / size:.3g}'
        lines.append(f'| `{name}` | {size:,} | {times} | {shown[0]} | {shown[1]} |')
    return lines


if __name__ == '__main__':
    print('\n'.join(rows()))
