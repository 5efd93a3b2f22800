"""`hybrid canary`: two versions of a target, as a running router measured them."""

from pathlib import Path

import click

from router.api.canaries import URL, CanariesReport, VersionReport
from router.operating import endpoint_options, format_table, open_endpoint

_HEAD = ("target", "share", "up", "started", "done", "failed", "mean", "tokens in", "out", "version")


@click.command()
@endpoint_options
@click.option("--json", "as_json", is_flag=True, help="Print the router's answer as JSON.")
def canary(url: str, key: str | None, key_file: Path | None, *, as_json: bool) -> None:
    """Show each canary beside the target that it is another version of, counted since the router started.

    \b
    Examples:
      hybrid canary
      hybrid canary --url https://router.example --key-file operator.key --json
    """
    report, said = open_endpoint(url, key, key_file).ask("GET", URL, CanariesReport)
    if as_json:
        click.echo(said)
    elif not report.pairs:
        click.echo("No target has a canary; targets.*.canary makes one.")
    else:
        rows = [_row(version) for pair in report.pairs for version in (pair.stable, pair.canary)]
        click.echo(format_table([_HEAD, *rows]))


def _row(one: VersionReport) -> tuple[str, ...]:
    return (
        one.target,
        f"{one.share:.0%}",
        "yes" if one.up else "NO",
        f"{one.started:,}",
        f"{one.done:,}",
        f"{one.failed:,}",
        "-" if one.mean_s is None else f"{one.mean_s * 1e3:.0f} ms",
        f"{one.prompt_tokens:,}",
        f"{one.completion_tokens:,}",
        one.version or "-",
    )
