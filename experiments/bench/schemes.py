"""The compressors of the benchmark, at the settings that papers and users choose."""

from __future__ import annotations

import gradzip as gz

# name in the table -> compressor. One row for each class, and the compositions that pay.
SCHEMES: dict[str, gz.Compressor] = {
    'Identity()': gz.Identity(),
    'TopK(0.001)': gz.TopK(0.001),
    'TopK(0.01)': gz.TopK(0.01),
    "TopK(0.01, indices='plain')": gz.TopK(0.01, indices='plain'),
    'TopK(0.1)': gz.TopK(0.1),
    'BlockTopK(32, 4096)': gz.BlockTopK(32, 4096),
    'ColumnMax(104)': gz.ColumnMax(104),
    'Threshold(0.6)': gz.Threshold(0.6),
    'Energy(0.1)': gz.Energy(0.1),
    'RandK(0.01)': gz.RandK(0.01),
    'RandBlock(0.01)': gz.RandBlock(0.01),
    'Bernoulli(0.01)': gz.Bernoulli(0.01),
    'WeightedBernoulli(0.01)': gz.WeightedBernoulli(0.01),
    'QSGD(7)': gz.QSGD(7),
    "Ternary('max')": gz.Ternary('max'),
    'Natural()': gz.Natural(),
    'Int(8)': gz.Int(8),
    'Int(4)': gz.Int(4),
    'Int(2)': gz.Int(2),
    "Cast('bfloat16')": gz.Cast('bfloat16'),
    "Cast('float8_e4m3fn')": gz.Cast('float8_e4m3fn'),
    'ScaledSign()': gz.ScaledSign(),
    'OneBit()': gz.OneBit(),
    'Rotated(QSGD(7))': gz.Rotated(gz.QSGD(7)),
    'EDEN(1)': gz.EDEN(1),
    'EDEN(2)': gz.EDEN(2),
    'EDEN(4)': gz.EDEN(4),
    'DCT(BlockTopK(4, 64), 64)': gz.DCT(gz.BlockTopK(4, 64), 64),
    'Induced(TopK(0.01), QSGD(7))': gz.Induced(gz.TopK(0.01), gz.QSGD(7)),
    'TopK(0.01) >> QSGD(7)': gz.TopK(0.01) >> gz.QSGD(7),
    'TopK(0.01) >> ScaledSign()': gz.TopK(0.01) >> gz.ScaledSign(),
}

SHARES = (0.001, 0.01, 0.1, 0.3)
# name in the figure -> (family, the compressor at several settings), for error against bits
SWEEPS: dict[str, tuple[str, list[gz.Compressor]]] = {
    'TopK': ('sparse', [gz.TopK(share) for share in SHARES]),
    'BlockTopK': ('sparse', [gz.BlockTopK(k, 4096) for k in (4, 41, 410, 1229)]),
    'Bernoulli, RandK': ('sparse', [gz.RandK(share) for share in SHARES]),
    'TopK >> QSGD(7)': ('both', [gz.TopK(share) >> gz.QSGD(7) for share in SHARES]),
    'TopK >> ScaledSign': ('both', [gz.TopK(share) >> gz.ScaledSign() for share in SHARES]),
    'QSGD': ('rounded', [gz.QSGD(levels) for levels in (1, 3, 7, 127)]),
    'Int, nearest': ('rounded', [gz.Int(b, block=64, rounding='nearest') for b in (2, 4, 8)]),
    'ScaledSign': ('rounded', [gz.ScaledSign()]),
    'OneBit': ('rounded', [gz.OneBit()]),
    'Natural': ('rounded', [gz.Natural()]),
    'EDEN': ('rotated', [gz.EDEN(bits) for bits in (1, 2, 3, 4, 5)]),
}
