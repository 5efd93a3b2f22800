"""Numbers inside a JSON artifact: little-endian, base64, with their shape; never a pickle."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

Side = Annotated[int, Meta(ge=0, le=1_000_000)]


class Number(StrEnum):
    """How one number is written, as numpy names it."""

    FLOAT = "<f4"
    STEPS = "|i1"
    INTEGER = "<i2"


class Array(Struct, frozen=True, forbid_unknown_fields=True):
    """`values` in C order; msgspec writes bytes as base64. Steps count `step`s from -127 to 127."""

    number: Number
    shape: Annotated[list[Side], Meta(min_length=1, max_length=3)]
    values: bytes
    step: Annotated[float, Meta(gt=0, le=1e6)] = 1.0

    def read(self, name: str, *shape: int | None) -> NDArray[Any]:
        """A read-only array: int32 of integers, float32 of all else.

        Args:
            name: What it is, for the message.
            shape: What it must be; None fits any side.

        Raises:
            ValueError: the shape is another, or a number is NaN or infinite.
        """
        kind = np.dtype(self.number.value)
        if len(shape) != len(self.shape) or any(w not in (None, s) for w, s in zip(shape, self.shape, strict=True)):
            wanted = " x ".join("any" if side is None else str(side) for side in shape)
            raise ValueError(f"{name}: has the shape {_spell(self.shape)} instead of {wanted}")
        if len(self.values) != int(np.prod(self.shape)) * kind.itemsize:
            raise ValueError(f"{name}: has {len(self.values)} bytes, which is not {_spell(self.shape)} numbers")
        found = np.frombuffer(self.values, kind).reshape(self.shape)
        if not np.isfinite(found).all():
            raise ValueError(f"{name}: has a number that is not finite")
        match self.number:
            case Number.FLOAT:
                found = found.astype(np.float32)
            case Number.STEPS:
                found = found * np.float32(self.step)
            case Number.INTEGER:
                found = found.astype(np.int32)
        found.flags.writeable = False
        return found


def write_array(values: NDArray[Any], number: Number = Number.FLOAT) -> Array:
    """Steps are rounded to, the largest value being 127 of them. Raises `ValueError` for what is not finite."""
    if not np.isfinite(values).all():
        raise ValueError("an array has a number that is not finite")
    step = 1.0
    if number is Number.STEPS:
        step = max(float(np.abs(values).max(initial=0)) / 127, 1e-12)
        values = np.rint(values / step)
    written = np.ascontiguousarray(values, np.dtype(number.value))
    return Array(number, list(written.shape), written.tobytes(), step)


def _spell(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
