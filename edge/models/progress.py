"""What a person sees while a model is fetched: a line per step, and on a terminal a bar with the time left."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


class Progress:
    """Writes to stderr, so that stdout stays for results."""

    def say(self, line: str) -> None:
        click.echo(line, err=True)

    @property
    def on_terminal(self) -> bool:
        return sys.stderr.isatty()

    @contextmanager
    def counting(self, label: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
        """Yields a function to call with every number of bytes done; the bar shows on a terminal only."""
        if not self.on_terminal:
            yield lambda _: None
            return
        with click.progressbar(length=total_bytes, label=label, file=sys.stderr) as bar:
            yield bar.update


def spell_bytes(count: int) -> str:
    """12_345_678 -> '12.3 MB'."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
