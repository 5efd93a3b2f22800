"""
Keys and values of all sequences: one buffer `[slots, kv_heads, context, head_size]` for each of a model's past inputs,
bound as past *and* present, so that the attention writes in place and nothing grows or is copied between steps.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray


class KeyValues(Protocol):
    """Buffers of one device."""

    device: str

    def address(self, buffer: int, slot: int) -> int:
        """Where a slot begins, for binding."""
        ...

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of a slot to another."""
        ...


class HostKeyValues:
    """In this process's memory. Pages are committed as sequences grow into them."""

    device = "cpu"

    def __init__(self, buffers: int, shape: Sequence[int], dtype: DTypeLike) -> None:
        self._buffers: list[NDArray[np.generic]] = [np.zeros(shape, dtype) for _ in range(buffers)]

    def address(self, buffer: int, slot: int) -> int:
        return int(self._buffers[buffer][slot].ctypes.data)

    def move(self, source: int, target: int, length: int) -> None:
        for buffer in self._buffers:
            buffer[target, :, :length] = buffer[source, :, :length]


class CudaKeyValues:
    """In a GPU's memory; onnxruntime's own `Identity` copies between slots, so no other CUDA package is needed."""

    device = "cuda"

    def __init__(self, buffers: int, shape: Sequence[int], dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._slot_shape = list(shape[1:])
        self._stride = int(np.prod(self._slot_shape)) * self._dtype.itemsize
        self._buffers = [
            ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, "cuda", 0) for _ in range(buffers)
        ]
        self._copy = ort.InferenceSession(_copy_model(self._dtype), providers=["CUDAExecutionProvider"])

    def address(self, buffer: int, slot: int) -> int:
        return int(self._buffers[buffer].data_ptr()) + slot * self._stride

    def move(self, source: int, target: int, length: int) -> None:
        for buffer in range(len(self._buffers)):
            binding = self._copy.io_binding()
            shape = self._slot_shape
            binding.bind_input("x", "cuda", 0, self._dtype, shape, self.address(buffer, source))
            binding.bind_output("y", "cuda", 0, self._dtype, shape, self.address(buffer, target))
            self._copy.run_with_iobinding(binding)


def _copy_model(dtype: np.dtype[np.generic]) -> bytes:
    from onnx import TensorProto, helper  # noqa: PLC0415 - 20 MB that only this device needs

    kind = TensorProto.FLOAT16 if dtype == np.float16 else TensorProto.FLOAT
    tensors = [helper.make_tensor_value_info(name, kind, None) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "copy", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content
