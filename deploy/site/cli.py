"""`hybrid site`: make, check and start a site's folder, and bundle it for a box without a network."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from deploy.site.errors import SiteError

if TYPE_CHECKING:
    from deploy.site.upgrade import Upgrade

Made = TypeVar("Made")
_SITE = click.Path(path_type=Path, file_okay=False, exists=True, resolve_path=True)
_SITE_OR_BUNDLE = click.Path(path_type=Path, exists=True, resolve_path=True)
_FILE = click.Path(path_type=Path, dir_okay=False, exists=True, resolve_path=True)
_NEW_FILE = click.Path(path_type=Path, dir_okay=False, resolve_path=True)
_FOLDER = click.Path(path_type=Path, file_okay=False, resolve_path=True)
_KINDS = ("demo", "dev", "edge-site", "cloud-site", "regional")


@click.group()
def site() -> None:
    """Make, check and start a site: router, edge, cloud in containers.

    \b
    hybrid site new shop --kind demo --models .models
    hybrid site check shop
    hybrid site up shop
    """


@site.command()
@click.argument("folder", type=_FOLDER)
@click.option("--kind", type=click.Choice(_KINDS), prompt="What kind of site", help="What the site is for.")
@click.option("--address", default="127.0.0.1", prompt="Address that clients connect to", help="Of the endpoint.")
@click.option("--port", default=8080, type=click.IntRange(1, 65535), prompt="Port", help="Of the endpoint.")
@click.option("--models", type=_FOLDER, prompt="Folder of the model store", help="On this host.")
@click.option("--cloud", metavar="HOST:PORT", help="The cloud's gRPC, for edge-site and regional.")
@click.option("--authority", type=_FOLDER, help="Folder of who signs certificates; made if there is none.")
@click.option("--host", "hosts", multiple=True, help="Name or address that edge sites reach a cloud-site by; repeat.")
@click.option("--host-network", is_flag=True, help="The router in the host's own network (edge-site).")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Any line of .env; repeat.")
def new(
    folder: Path,
    kind: str,
    address: str,
    port: int,
    models: Path,
    cloud: str | None,
    authority: Path | None,
    hosts: tuple[str, ...],
    settings: tuple[str, ...],
    *,
    host_network: bool,
) -> None:
    """Write a site's folder from a few answers, with fresh secrets; asks for what no option gives.

    The first client's API key goes to stdout, once.

    \b
    Examples:
      hybrid site new shop --kind edge-site --cloud cloud.example.org:8001 --authority ~/authority
      hybrid site new cloud --kind cloud-site --host cloud.example.org --authority ~/authority
    """
    from deploy.site.scaffold import Answers, Kind, scaffold  # noqa: PLC0415 - `--help` needs no cryptography

    given = {"ENDPOINT_ADDRESS": address, "ENDPOINT_PORT": str(port), "MODELS": str(models)}
    given |= dict(_split(setting) for setting in settings)
    answers = Answers(Kind(kind), folder.name, given, cloud, authority, hosts, host_network=host_network)
    key = _or_exit(lambda: scaffold(folder, answers))
    click.echo(f"{folder}: written. `hybrid site check {folder.name}`, then `hybrid site up {folder.name}`.", err=True)
    click.echo("The API key of its first client, who is an operator; it is kept nowhere:", err=True)
    click.echo(key)


@site.command()
@click.argument("place", metavar="FOLDER|BUNDLE", type=_SITE_OR_BUNDLE)
@click.option("--key", "public_key", type=_FILE, help="signing_key.pub.pem of who made the bundle.")
def check(place: Path, public_key: Path | None) -> None:
    """Check the files of a site against each other, or a bundle against what was signed; status 1 if anything is wrong.

    \b
    Examples:
      hybrid site check shop
      hybrid site check shop.bundle --key keys/signing_key.pub.pem
    """
    if place.is_dir():
        _check(place)
    elif public_key is None:
        raise click.UsageError(f"{place.name} is a bundle; give --key, the public key that it must be signed with")
    else:
        from deploy.site.bundle_check import find_bundle_faults  # noqa: PLC0415 - `--help` needs no cryptography

        _tell(place, _or_exit(lambda: find_bundle_faults(place, public_key)))
    click.echo(f"{place}: good.")


@site.command()
@click.argument("folder", type=_SITE)
@click.option("--timeout", "limit_s", default=120.0, show_default=True, help="Seconds until all must be healthy.")
def up(folder: Path, limit_s: float) -> None:
    """Check a site, start it, and wait until it serves. `docker compose down` in its folder stops it.

    \b
    Example:
      hybrid site up shop
    """
    from deploy.site.launch import start  # noqa: PLC0415 - other commands need no HTTP client
    from deploy.site.rolling import GoodFiles  # noqa: PLC0415

    _check(folder)
    url = _or_exit(lambda: start(folder, limit_s, lambda line: click.echo(f"  {line}")))
    _or_exit(GoodFiles(folder).keep)
    click.echo(f"Ready: {url}/v1")


@site.command()
@click.argument("folder", type=_SITE)
@click.option("--authority", type=_FOLDER, required=True, help="Folder of who signs; made if there is none.")
@click.option("--host", "hosts", multiple=True, help="Name or address that others reach this site by; repeat.")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 3650), help="How long it is good.")
def certificates(folder: Path, authority: Path, hosts: tuple[str, ...], days: int) -> None:
    """Write a site's certificate, its key and its authority's certificate into its secrets.

    Restart the site's router and Triton afterwards; they read them when they start.

    \b
    Example:
      hybrid site certificates cloud --authority ~/authority --host cloud.example.org --host triton
    """
    from deploy.site.certificates import issue  # noqa: PLC0415

    _or_exit(lambda: issue(authority, folder / "secrets", folder.name, list(hosts), days=days))
    click.echo(f"{folder / 'secrets'}: ca.pem, certificate.pem, certificate_key.pem, good for {days} days")


@site.command()
@click.argument("folder", type=_SITE)
@click.option("--timeout", "ready_s", default=90.0, show_default=True, help="Seconds until a replica must be ready.")
@click.option("--settle-s", default=3.0, show_default=True, help="Seconds that the balancer has to see a new replica.")
def roll(folder: Path, ready_s: float, settle_s: float) -> None:
    """Replace the router's replicas one at a time, after a change of .env or of their files; no request is refused.

    One that is not ready in time brings back the files that the site last ran well with. Exit status: 0 all are new,
    1 all are as before.

    \b
    Example:
      sed -i 's/^VERSION=.*/VERSION=1.4.0/' north/.env && hybrid site roll north
    """
    from deploy.site.plans import plan_roll  # noqa: PLC0415
    from deploy.site.waiting import Limits  # noqa: PLC0415

    _check(folder)
    limits = Limits(ready_s=ready_s, settle_s=settle_s)
    _alone(folder, lambda: plan_roll(folder, limits, lambda line: click.echo(f"  {line}")).run())


@site.command()
@click.argument("folder", type=_SITE)
@click.argument("version")
@click.option("--share", "shares", multiple=True, type=click.FloatRange(0, 1), help="A step; repeat.  [0.05, 0.5, 1]")
@click.option("--hold-s", default=30.0, show_default=True, help="Seconds to watch each step.")
@click.option("--stay", is_flag=True, help="Keep both versions and the last share; `promote` or `abandon` ends it.")
@click.option("--timeout", "ready_s", default=90.0, show_default=True, help="Seconds until an edge must be ready.")
def upgrade(
    folder: Path, version: str, shares: tuple[float, ...], hold_s: float, ready_s: float, *, stay: bool
) -> None:
    """Put another version of the edge's model in the place of the one that serves; no request is refused.

    It is checked, started beside the old one, asked the questions of probes.yaml, and given a growing share of the
    work. If anything is wrong with it the old version has all of it again, and the exit status is 1.

    \b
    Examples:
      hybrid site upgrade north 2
      hybrid site upgrade north 2 --share 0.05 --stay; hybrid canary; hybrid site promote north
    """
    steps = shares or ((0.05,) if stay else (0.05, 0.5, 1.0))
    _alone(folder, lambda: _plan_upgrade(folder, ready_s).run(version, steps, hold_s, stay=stay))


@site.command()
@click.argument("folder", type=_SITE)
def promote(folder: Path) -> None:
    """Give a new version that an upgrade stayed with all of the work, and the old one's place.

    \b
    Example:
      hybrid site promote north
    """
    _alone(folder, lambda: _plan_upgrade(folder).finish())


@site.command()
@click.argument("folder", type=_SITE)
def abandon(folder: Path) -> None:
    """Give all work back to the old version, and stop the new one; also after an upgrade that was interrupted.

    \b
    Example:
      hybrid site abandon north
    """
    _alone(folder, lambda: _plan_upgrade(folder).abandon())


def _plan_upgrade(folder: Path, ready_s: float = 90.0) -> "Upgrade":
    from deploy.site.plans import plan_upgrade  # noqa: PLC0415
    from deploy.site.waiting import Limits  # noqa: PLC0415

    return plan_upgrade(folder, Limits(ready_s=ready_s), lambda line: click.echo(f"  {line}"))


def _alone(folder: Path, work: Callable[[], None]) -> None:
    from deploy.site.files import locked  # noqa: PLC0415

    def run() -> None:
        with locked(folder):
            work()

    _or_exit(run)


@site.command()
@click.argument("folder", type=_FOLDER)
def key(folder: Path) -> None:
    """Make the pair of keys that bundles are signed with and checked by.

    signing_key.pem stays with whoever makes bundles; signing_key.pub.pem goes to each box by a way that you trust.

    \b
    Example:
      hybrid site key ~/keys
    """
    from deploy.site.signing import PRIVATE_KEY, PUBLIC_KEY, make_signing_key  # noqa: PLC0415

    _or_exit(lambda: make_signing_key(folder))
    click.echo(f"{folder}: {PRIVATE_KEY} (keep it), {PUBLIC_KEY} (give it to the boxes)")


@site.command()
@click.argument("folder", type=_SITE)
@click.option("-o", "--out", type=_NEW_FILE, required=True, help="The bundle.")
@click.option("--key", "private_key", type=_FILE, required=True, help="signing_key.pem of `hybrid site key`.")
@click.option("--sbom", "sboms", multiple=True, metavar="IMAGE=FILE", help="Its maker's CycloneDX file; repeat.")
def bundle(folder: Path, out: Path, private_key: Path, sboms: tuple[str, ...]) -> None:
    """Put all of a site but its secrets into one signed file, for a box without a network.

    Images, models, configuration, bills of materials, and an installer that needs a shell, openssl, docker and compose.

    \b
    Example:
      hybrid site bundle shop -o shop.bundle --key ~/keys/signing_key.pem
    """
    from deploy.site.bundle import bundle as write_bundle  # noqa: PLC0415
    from deploy.site.check import Site  # noqa: PLC0415
    from deploy.site.signing import read_signing_key  # noqa: PLC0415

    given = {name: Path(file) for name, file in map(_split, sboms)}
    signer = _or_exit(lambda: read_signing_key(private_key))
    _check(folder)
    made = _or_exit(
        lambda: write_bundle(Site.open(folder), out, signer, given, lambda line: click.echo(f"  {line}", err=True))
    )
    click.echo(f"{out}: {out.stat().st_size / 1e6:.0f} MB, {len(made.images)} images, {len(made.models)} models")


def _check(folder: Path) -> None:
    from deploy.site.check import Site, find_faults  # noqa: PLC0415 - imports every part

    _tell(folder, _or_exit(lambda: find_faults(Site.open(folder))))


def _tell(place: Path, faults: list[str]) -> None:
    for fault in faults:
        click.echo(fault, err=True)
    if faults:
        raise click.ClickException(f"{len(faults)} {'fault' if len(faults) == 1 else 'faults'} in {place}")


def _split(setting: str) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not equals:
        raise click.UsageError(f"{setting}: give NAME=VALUE")
    return name, value


def _or_exit(make: Callable[[], Made]) -> Made:
    try:
        return make()
    except SiteError as exc:
        raise click.ClickException(str(exc)) from exc
