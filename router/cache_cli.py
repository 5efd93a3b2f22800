"""`hybrid cache`: a running router's caches, seen and flushed by its operator."""

from pathlib import Path

import click
import msgspec

from router.cache import FlushReport, Selector, TierStatistics
from router.cache.statistics import CacheReport
from router.operating import endpoint_options, format_ratio, format_table, open_endpoint

URL = "/v1/cache"
_HEAD = ("tier", "hits", "misses", "ratio", "entries", "size", "of", "evicted", "errors", "corrupt", "mean", "breaker")
_STEP = 1024


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
    report, written = open_endpoint(url, key, key_file).ask("GET", URL, CacheReport)
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
    router = open_endpoint(url, key, key_file)
    if dry_run or not yes:
        counted, _ = router.ask("DELETE", URL, FlushReport, {**query, "dry_run": "true"})
        click.echo(f"{_name(counted.selector)}: {_count(counted)}")
        if dry_run:
            return
        click.confirm("Flush them?", abort=True)
    flushed, _ = router.ask("DELETE", URL, FlushReport, query)
    click.echo(f"Flushed {_name(flushed.selector)}: {_count(flushed)}")


def _name(selector: Selector) -> str:
    given = [f"{name} {value}" for name, value in msgspec.structs.asdict(selector).items() if value is not None]
    return f"records of {' and '.join(given)}" if given else "all records"


def _count(report: FlushReport) -> str:
    return ", ".join(f"{tier} {_told(count)}" for tier, count in report.records.items()) or "no tiers"


def _told(count: int | None) -> str:
    return "cannot be asked now, and will be told later" if count is None else f"{count:,}"


def _describe(report: CacheReport) -> str:
    tiers = format_table([_HEAD, *(_row(tier) for tier in report.tiers)])
    caches = [
        (one.kind, f"{one.hits:,}", f"{one.misses:,}", format_ratio(one.hits, one.misses)) for one in report.caches
    ]
    return f"{tiers}\n\n{format_table([('cache', *_HEAD[1:4]), *caches])}" if caches else tiers


def _row(tier: TierStatistics) -> tuple[str, ...]:
    counts = (tier.evictions, tier.errors, tier.corrupt)
    reads = tier.hits + tier.misses
    return (
        tier.tier,
        f"{tier.hits:,}",
        f"{tier.misses:,}",
        format_ratio(tier.hits, tier.misses),
        f"{tier.entries:,}",
        _size(tier.bytes),
        _size(tier.most_bytes) if tier.most_bytes else "-",
        *(f"{count:,}" for count in counts),
        f"{tier.seconds / reads * 1e3:.3f} ms" if reads else "-",
        "open" if tier.open else "closed",
    )


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < _STEP:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= _STEP
    return f"{size:.1f} GiB"
