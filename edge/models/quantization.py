"""Weights as 4- or 8-bit blocks, the form of onnxruntime's `MatMulNBits`."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BLOCK: Final = 32


def quantize_blocks(weight: Floats, bits: int) -> tuple[NDArray[np.uint8], Floats]:
    """Symmetric blocks of 32 inputs: `weight` [out, in] becomes bytes [out, in/32, 4*bits] and scales [out, in/32].

    Values are stored around 2^(bits-1). A block's largest magnitude, whatever its sign, becomes the lowest value, so
    that the whole range is used. `in` is filled up with zeros; two 4-bit values share a byte, the first one low.
    """
    outputs, inputs = weight.shape
    middle = 1 << (bits - 1)
    blocks = np.pad(weight, ((0, 0), (0, -inputs % BLOCK))).reshape(outputs, -1, BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1, keepdims=True), axis=-1)
    scales = largest / np.float32(-middle)
    steps = np.divide(blocks, scales, out=np.zeros_like(blocks), where=scales != 0)
    values = np.clip(np.rint(steps) + middle, 0, 2 * middle - 1).astype(np.uint8)
    if bits == 4:
        values = values[..., 0::2] | (values[..., 1::2] << 4)
    return np.ascontiguousarray(values), np.ascontiguousarray(scales[..., 0])


def quantize_rows(table: Floats, largest_step: int = 127) -> tuple[NDArray[np.int8], Floats]:
    """[rows, width] float becomes [rows, width] int8 within ±`largest_step` and [rows, 1] scales."""
    largest = np.abs(table).max(axis=-1, keepdims=True)
    scales = np.where(largest > 0, largest / np.float32(largest_step), np.float32(1)).astype(np.float32)
    return np.rint(table / scales).astype(np.int8), scales
