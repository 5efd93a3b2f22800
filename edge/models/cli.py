"""`hybrid models`: the model store from the command line. Exit status: 0 all well, 1 a problem, 2 a wrong call."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click
import msgspec

from edge.models.add import add_model, pin_model
from edge.models.catalog import Catalog, Exporter, Model, Precision, packaged_catalog, read_catalog, write_catalog
from edge.models.errors import ModelsError
from edge.models.fetch import Fetcher
from edge.models.prepare import Entry, check_folder, inspect, pull
from edge.models.progress import Progress, spell_bytes
from edge.models.store import Store

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Workplace:
    """What every command needs: a store and a catalogue."""

    store: Store
    catalog_path: Path

    def catalog(self) -> Catalog:
        return read_catalog(self.catalog_path)


def _options(command: F) -> F:
    """--store and --catalog, handed over as one `Workplace`."""

    def assemble(context: click.Context, _: click.Parameter, store: Path) -> Workplace:
        return Workplace(Store(store.absolute()), context.params.pop("catalog"))

    catalog = click.option(
        "--catalog",
        type=click.Path(path_type=Path, dir_okay=False),
        default=packaged_catalog,
        is_eager=True,
        help="The catalogue to use.  [default: the one of the project]",
    )
    store = click.option(
        "--store",
        "place",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="HYBRID_MODELS",
        default=Path(".models"),
        callback=assemble,
        help="The folder that holds the models.  [default: $HYBRID_MODELS or .models]",
    )
    return catalog(store(command))


_offline = click.option(
    "--offline", is_flag=True, envvar="HF_HUB_OFFLINE", help="Ask nothing of the network; say what is missing."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(name="models")
def main() -> None:
    """Fetch, check and prepare models.

    \b
    hybrid models pull all-minilm-l6-v2     fetch and prepare one model
    hybrid models pull --all --offline      prove that everything is there
    hybrid models verify                    read every file of the store again
    hybrid models list --json
    """


@main.command(name="pull")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Every model of the catalogue.")
@_offline
@_options
def pull_command(names: tuple[str, ...], everything: bool, offline: bool, place: Workplace) -> None:
    """Bring models into the store: fetch, check every digest, export and quantize.

    Run it again after an interruption and it resumes; run it when all is there and it only checks.

    \b
    hybrid models pull all-minilm-l6-v2 demo-edge
    hybrid models pull --all --store /srv/models
    hybrid models pull my-model --catalog my-models.yaml
    """
    if bool(names) == everything:
        raise click.UsageError("Name models or give --all (one of the two); `hybrid models list` shows the names.")
    with _reported():
        catalog = place.catalog()
        models = catalog.models if everything else [catalog.find(name) for name in names]
        fetcher = Fetcher(place.catalog_path.absolute().parent, Progress(), offline)
        place.store.sweep()
        for model in models:
            folder, state = pull(model, place.store, fetcher)
            click.echo(f"{model.label}  {state}  {folder}")


@main.command(name="verify")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_json
@_options
def verify_command(names: tuple[str, ...], as_json: bool, place: Workplace) -> None:
    """Read every file of the models in the store and compare sizes and digests.

    \b
    hybrid models verify
    hybrid models verify demo-edge --json
    """
    folders = [folder for folder in place.store.folders() if not names or folder.parent.name in names]
    absent = set(names) - {folder.parent.name for folder in folders}
    entries = [check_folder(folder) for folder in folders]
    _print_entries(entries, as_json)
    for name in sorted(absent):
        click.echo(f"{name}: not in the store {place.store.root}; run `hybrid models pull {name}`.", err=True)
    if not entries and not names:
        click.echo(f"{place.store.root}: no models here; run `hybrid models pull --all`.", err=True)
    sys.exit(1 if absent or not entries or any(entry.problem for entry in entries) else 0)


@main.command(name="list")
@_json
@_options
def list_command(as_json: bool, place: Workplace) -> None:
    """Show the models of the catalogue and of the store. Reads no weights: `verify` does.

    \b
    hybrid models list
    hybrid models list --catalog my-models.yaml --json
    """
    with _reported():
        _print_entries(inspect(place.catalog(), place.store), as_json)


@main.command(name="pin")
@click.argument("name")
@_options
def pin_command(name: str, place: Workplace) -> None:
    """Write into the catalogue the digests of a folder model's files as they are now.

    \b
    hybrid models pin demo-edge
    """
    with _reported():
        model = pin_model(place.catalog().find(name), place.catalog_path.absolute().parent)
        write_catalog(place.catalog_path, place.catalog().replacing(model))
        _tell_recorded(model, place.catalog_path)


@main.command(name="add")
@click.argument("repo")
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit; the commit is recorded.")
@click.option("--name", help="Its name here.  [default: from REPO]")
@click.option(
    "--precision", type=click.Choice([*map(str, Exporter.LLAMA.precisions)]), default="int4", show_default=True
)
@_options
def add_command(repo: str, revision: str, name: str | None, precision: str, place: Workplace) -> None:
    """Record a Hugging Face repository in a catalogue of your own, with the digests its files have today.

    This trusts what the hub serves now; every later pull, on any machine, must get exactly the same bytes.

    \b
    hybrid models add HuggingFaceTB/SmolLM2-135M-Instruct --catalog my-models.yaml
    hybrid models pull smollm2-135m-instruct --catalog my-models.yaml
    """
    if place.catalog_path == packaged_catalog():
        raise click.UsageError("Give --catalog: a file of your own (made if absent), not the project's.")
    with _reported():
        catalog = place.catalog() if place.catalog_path.exists() else Catalog([])
        model = add_model(repo, revision, name, Precision(precision), place.store, Progress())
        write_catalog(place.catalog_path, catalog.replacing(model))
        _tell_recorded(model, place.catalog_path)


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except ModelsError as exc:
        click.echo(f"hybrid models: {exc}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("hybrid models: stopped; run the same command again to resume.", err=True)
        sys.exit(1)


def _tell_recorded(model: Model, path: Path) -> None:
    click.echo(f"{model.label}: {len(model.files)} files, {spell_bytes(model.source_bytes)} -> {path}")


def _print_entries(entries: Sequence[Entry], as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(entries)).decode())
        return
    width = max((len(entry.label) for entry in entries), default=0)
    for entry in entries:
        size = spell_bytes(entry.bytes) if entry.bytes else ""
        click.echo(f"{entry.label:<{width}}  {entry.kind:<10}  {size:>8}  {entry.license:<12}  {entry.state}".rstrip())
        if entry.problem:
            click.echo(f"{entry.label}: {entry.problem}", err=True)
