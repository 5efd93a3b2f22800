"""`hybrid cache`: a running router's caches, seen and flushed by its operator."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import httpx
import msgspec

from edge.engine.settings import ConfigError
from edge.wire import ErrorBody
from router.cache import FlushReport, Selector, TierStatistics
from router.cache.statistics import CacheReport
from router.config import read_secret

URL = "/v1/cache"
_TIMEOUT_S = 60.0
_HEAD = ("tier", "hits", "misses", "ratio", "entries", "size", "of", "evicted", "errors", "corrupt", "mean", "breaker")
_STEP = 1024
Answer = TypeVar("Answer", CacheReport, FlushReport)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The running router."""

    url: str
    key: str | None

    def ask(self, method: str, kind: type[Answer], query: dict[str, str] | None = None) -> tuple[Answer, bytes]:
        """What `/v1/cache` answers, also as it was written.

        Raises:
            ClickException: nobody answers, or with a refusal.
        """
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        url = f"{self.url.rstrip('/')}{URL}"
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


@click.group()
def cache() -> None:
    """See and flush a running router's caches; needs an operator's key where the router has keys.

    \b
    Examples:
      hybrid cache stats
      hybrid cache flush --tenant shop --dry-run
    """


@cache.command()
@endpoint_options
@click.option("--json", "as_json", is_flag=True, help="Print the router's answer, with every field, as JSON.")
def stats(url: str, key: str | None, key_file: Path | None, *, as_json: bool) -> None:
    """Show what each tier and each cache did since the router started.

    `mean` is the mean time of a read; a breaker that is `open` keeps its tier out.

    \b
    Examples:
      hybrid cache stats
      hybrid cache stats --url https://router.example --key-file operator.key
      hybrid cache stats --json | jq '.tiers[].hits'
    """
    report, written = _endpoint(url, key, key_file).ask("GET", CacheReport)
    click.echo(msgspec.json.format(written, indent=2) if as_json else _describe(report))


@cache.command()
@endpoint_options
@click.option("--tenant", help="Only what this tenant asked.")
@click.option("--model", help="Only what this target answered.")
@click.option("--tag", help="Only what was stored with this tag.")
@click.option("--all", "everything", is_flag=True, help="All records of all tenants.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def flush(
    url: str, key: str | None, key_file: Path | None, *, everything: bool, dry_run: bool, yes: bool, **given: str | None
) -> None:
    """Forget records in every tier and replica. What is selected must match every option given.

    Asks first, with the counts of a dry run. Each flush is a line in the router's log.

    \b
    Examples:
      hybrid cache flush --tenant shop --model cloud-demo --dry-run
      hybrid cache flush --tag faq-2026 --yes
      hybrid cache flush --all
    """
    query = {name: value for name, value in given.items() if value is not None}
    if everything is bool(query):
        raise click.UsageError("Say what to flush: --tenant, --model and --tag, or --all alone.")
    router = _endpoint(url, key, key_file)
    if dry_run or not yes:
        counted, _ = router.ask("DELETE", FlushReport, {**query, "dry_run": "true"})
        click.echo(f"{_name(counted.selector)}: {_count(counted)}")
        if dry_run:
            return
        click.confirm("Flush them?", abort=True)
    flushed, _ = router.ask("DELETE", FlushReport, query)
    click.echo(f"Flushed {_name(flushed.selector)}: {_count(flushed)}")


def _endpoint(url: str, key: str | None, key_file: Path | None) -> Endpoint:
    try:
        return Endpoint(url, read_secret(key_file) if key_file else key)
    except ConfigError as exc:
        raise click.ClickException(str(exc)) from exc


def _name(selector: Selector) -> str:
    given = [f"{name} {value}" for name, value in msgspec.structs.asdict(selector).items() if value is not None]
    return f"records of {' and '.join(given)}" if given else "all records"


def _count(report: FlushReport) -> str:
    return ", ".join(f"{tier} {_told(count)}" for tier, count in report.records.items()) or "no tiers"


def _told(count: int | None) -> str:
    return "cannot be asked now, and will be told later" if count is None else f"{count:,}"


def _describe(report: CacheReport) -> str:
    tiers = _table([_HEAD, *(_row(tier) for tier in report.tiers)])
    caches = [(one.kind, f"{one.hits:,}", f"{one.misses:,}", _ratio(one.hits, one.misses)) for one in report.caches]
    return f"{tiers}\n\n{_table([('cache', *_HEAD[1:4]), *caches])}" if caches else tiers


def _row(tier: TierStatistics) -> tuple[str, ...]:
    counts = (tier.evictions, tier.errors, tier.corrupt)
    reads = tier.hits + tier.misses
    return (
        tier.tier,
        f"{tier.hits:,}",
        f"{tier.misses:,}",
        _ratio(tier.hits, tier.misses),
        f"{tier.entries:,}",
        _size(tier.bytes),
        _size(tier.most_bytes) if tier.most_bytes else "-",
        *(f"{count:,}" for count in counts),
        f"{tier.seconds / reads * 1e3:.3f} ms" if reads else "-",
        "open" if tier.open else "closed",
    )


def _ratio(hits: int, misses: int) -> str:
    return f"{hits / (hits + misses):.1%}" if hits + misses else "-"


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < _STEP:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= _STEP
    return f"{size:.1f} GiB"


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
