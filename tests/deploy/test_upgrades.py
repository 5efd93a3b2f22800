"""The regional site under load, in containers: routers rolled to another image, the edge to another model, and back."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy.site.scaffold import Answers, Kind
from edge.engine.artifact import ArtifactKind, write_manifest
from edge.engine.files import replace_file
from loadtests.site import STORE
from router.cli import main
from tests.deploy.containers import ContainerSite, container_site, docker, settings, wait_until
from tests.site.open_load import Load

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(900)]
REPLICAS = ("router-1", "router-2", "router-3")
RATE = 6.0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with three versions of the edge's model; the third one answers nothing as it should."""
    store = tmp_path_factory.mktemp("models")
    shutil.copytree(STORE, store, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".work", ".locks"))
    for version in ("2", "wrong"):
        shutil.copytree(store / "demo-edge" / "1", store / "demo-edge" / version)
    replace_file(store / "demo-edge" / "wrong" / "tokenizer_config.json", b'{"chat_template": "hello"}')
    for version in ("2", "wrong"):
        folder = store / "demo-edge" / version
        write_manifest(folder, kind=ArtifactKind.CHAT, name="demo-edge", version=version)
        (folder / "manifest.json").chmod(0o644)
        (folder / "tokenizer_config.json").chmod(0o644)
    store.chmod(0o755)
    return store


@pytest.fixture(scope="module")
def region(nowhere: str, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerSite]:
    """The site, whose cloud is not there; it rolls to the images' other name `next`."""
    docker("tag", "hybrid-router:dev", "hybrid-router:next")
    docker("tag", "hybrid-edge:dev", "hybrid-edge:next")
    folder = tmp_path_factory.mktemp("sites") / "hybrid-test-upgrades"
    answers = Answers(
        Kind.REGIONAL,
        folder.name,
        settings(MODELS=str(store)),
        cloud=nowhere,
        authority=folder.parent / "authority",
    )
    with container_site(folder, answers) as site:
        wait_until(lambda: all(healthy(site, name) for name in REPLICAS), "three replicas")
        yield site


@pytest.fixture
def load(region: ContainerSite) -> Iterator[Load]:
    """Load on the endpoint throughout; not one request may fail."""
    with Load(region.url, RATE, key=region.key) as load:
        yield load
    print(f"{load.sent} sent, {len(load.failed)} failed; by target {dict(load.answered)}")
    assert load.failed == []
    assert load.answered.total() == load.sent > RATE


def healthy(site: ContainerSite, service: str) -> bool:
    return bool(site.inspect(service)["State"]["Health"]["Status"] == "healthy")


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["site", *arguments])
    print(result.output)
    return result


def test_replicas_are_rolled_to_another_image(region: ContainerSite, load: Load) -> None:
    environment = region.folder / ".env"
    environment.write_text(environment.read_text().replace("VERSION=dev", "VERSION=next"))

    result = run("roll", str(region.folder))

    assert result.exit_code == 0, result.output
    assert {region.inspect(name)["Config"]["Image"] for name in REPLICAS} == {"hybrid-router:next"}


def test_the_edge_gets_another_model(region: ContainerSite, load: Load) -> None:
    result = run("upgrade", str(region.folder), "2", "--share", "0.5", "--share", "1", "--hold-s", "5")

    assert result.exit_code == 0, result.output
    assert "/models/demo-edge/2" in (region.folder / "edge.yaml").read_text()
    assert load.answered["site-edge-next"] > 0
    assert not docker("ps", "-q", "--filter", f"name={region.folder.name}.edge-next")


def test_a_model_that_fails_its_probes_changes_nothing(region: ContainerSite, load: Load) -> None:
    result = run("upgrade", str(region.folder), "wrong", "--hold-s", "1")

    assert result.exit_code == 1
    assert "to the probe question 'What is 3 plus 4?'" in result.output
    assert "edge serves on with /models/demo-edge/2" in result.output
    assert load.answered["site-edge-next"] == 0
