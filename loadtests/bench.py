"""What every benchmark prints and leaves behind: a table, `.bench/NAME.json`, and an exit status."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

FOLDER = Path(".bench")


@dataclass(frozen=True, slots=True)
class Row:
    """One measured value; `bar` says what it has to be, `holds` whether it is."""

    name: str
    value: str
    bar: str
    holds: bool


def report(name: str, rows: Sequence[Row]) -> int:
    """Print the table, write the file, return the exit status: 1 when a bar does not hold."""
    widths = [max(len(getattr(row, key)) for row in rows) for key in ("name", "value", "bar")]
    for row in rows:
        verdict = "" if row.bar == "-" else "holds" if row.holds else "DOES NOT HOLD"
        click.echo(f"{row.name:<{widths[0]}}  {row.value:>{widths[1]}}  {row.bar:<{widths[2]}}  {verdict}".rstrip())
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n")
    return 0 if all(row.holds for row in rows) else 1
