"""Kernels for TPU, written with Pallas. Each has a plain form elsewhere that computes the same."""

from gradzip._kernels.mosaic import (
    blocks as blocks,
    columns as columns,
    decoders as decoders,
    encoders as encoders,
    rotations as rotations,
    top_k as top_k,
)
