"""What every section of the router's configuration is made of."""

from typing import Annotated

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Share = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every part of the file: a misspelt key stops the start."""
