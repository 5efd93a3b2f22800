"""What the operator's commands share: a running router that is asked, and tables."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import httpx
import msgspec

from edge.engine.settings import ConfigError
from edge.wire import ErrorBody
from router.config import read_secret

_TIMEOUT_S = 60.0
Report = TypeVar("Report", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The running router."""

    url: str
    key: str | None

    def ask(
        self, method: str, path: str, kind: type[Report], query: dict[str, str] | None = None
    ) -> tuple[Report, bytes]:
        """What it answers, also as it was written.

        Raises:
            ClickException: nobody answers, or with a refusal.
        """
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        url = f"{self.url.rstrip('/')}{path}"
        try:
            response = httpx.request(method, url, params=query, headers=headers, timeout=_TIMEOUT_S)
            if response.is_error:
                error = msgspec.json.decode(response.content, type=ErrorBody).error
                raise click.ClickException(f"{self.url}: {error.message}")
            return msgspec.json.decode(response.content, type=kind), response.content
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as exc:
            raise click.ClickException(f"{self.url} did not answer: {exc}; is the router running there?") from exc


def endpoint_options(command: Any) -> Any:
    """Where the router is, and the operator's key."""
    options = (
        click.option(
            "--url", default="http://127.0.0.1:8080", envvar="HYBRID_URL", show_default=True, help="The router."
        ),
        click.option("--key", envvar="HYBRID_API_KEY", help="An operator's key; better in HYBRID_API_KEY or a file."),
        click.option("--key-file", type=click.Path(dir_okay=False, path_type=Path), help="The file that holds it."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def open_endpoint(url: str, key: str | None, key_file: Path | None) -> Endpoint:
    """The router that the options name.

    Raises:
        ClickException: the key's file cannot be read.
    """
    try:
        return Endpoint(url, read_secret(key_file) if key_file else key)
    except ConfigError as exc:
        raise click.ClickException(str(exc)) from exc


def format_table(rows: list[tuple[str, ...]]) -> str:
    """The first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def format_ratio(hits: int, misses: int) -> str:
    """Of hits in all."""
    return f"{hits / (hits + misses):.1%}" if hits + misses else "-"
