"""The compressors of the benchmark, at the settings that papers and users choose."""

from __future__ import annotations

import gradzip as gz

# name in the table -> compressor. One row for each class, and the compositions that pay.
SCHEMES: dict[str, gz.Compressor] = {
    repr(compressor): compressor
    for compressor in (
        gz.Identity(),
        gz.TopK(0.001),
        gz.TopK(0.01),
        gz.TopK(0.1),
        gz.BlockTopK(32, 4096),
        gz.Threshold(0.6),
        gz.Energy(0.1),
        gz.RandK(0.01),
        gz.RandBlock(0.01),
        gz.Bernoulli(0.01),
        gz.QSGD(7),
        gz.Ternary('max'),
        gz.Natural(),
        gz.Int(8, 256),
        gz.Int(4, 64),
        gz.Int(2, 32),
        gz.ScaledSign(),
        gz.OneBit(),
        gz.Rotated(gz.ScaledSign()),
        gz.EDEN(1),
        gz.EDEN(2),
        gz.EDEN(4),
        gz.DCT(gz.BlockTopK(4, 64), 64),
        gz.Induced(gz.TopK(0.01), gz.Bernoulli(0.01)),
        gz.TopK(0.01) >> gz.QSGD(7),
        gz.TopK(0.01) >> gz.ScaledSign(),
    )
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
    'Int, nearest': ('rounded', [gz.Int(b, 64, rounding='nearest') for b in (2, 4, 8)]),
    'ScaledSign': ('rounded', [gz.ScaledSign()]),
    'OneBit': ('rounded', [gz.OneBit()]),
    'Natural': ('rounded', [gz.Natural()]),
    'EDEN': ('rotated', [gz.EDEN(bits) for bits in (1, 2, 3, 4, 5)]),
}
