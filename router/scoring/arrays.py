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

    FLOAT32 = "<f4"
    FLOAT16 = "<f2"
    INT32 = "<i4"
    INT16 = "<i2"


class Array(Struct, frozen=True, forbid_unknown_fields=True):
    """`values` in C order; msgspec writes bytes as base64."""

    number: Number
    shape: Annotated[list[Side], Meta(min_length=1, max_length=3)]
    values: bytes

    def read(self, name: str, *shape: int | None) -> NDArray[Any]:
        """A read-only array, floats as float32.

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
        if kind.kind == "f":
            if not np.isfinite(found).all():
                raise ValueError(f"{name}: has a number that is not finite")
            found = found.astype(np.float32)
        else:
            found = found.astype(np.int32)
        found.flags.writeable = False
        return found


def write_array(values: NDArray[Any], number: Number = Number.FLOAT32) -> Array:
    """Raises `ValueError` for a number that is not finite, or becomes so in `number`."""
    written = np.ascontiguousarray(values, np.dtype(number.value))
    if not np.isfinite(written).all():
        raise ValueError("an array has a number that is not finite")
    return Array(number, list(written.shape), written.tobytes())


def _spell(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
