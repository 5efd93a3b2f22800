"""Router replicas rolled and edge models upgraded under load, as plain processes: nobody's request fails."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner

from deploy.site.errors import SiteError
from deploy.site.rolling import GoodFiles, Roll
from deploy.site.upgrade import Edge, Question, Upgrade, read_artifact
from deploy.site.waiting import Limits, wait_ready, wait_targets
from edge.engine.artifact import ArtifactKind, write_manifest
from edge.engine.files import replace_file
from loadtests.site import STORE
from router.cli import main
from tests.site.balancer import Balancer
from tests.site.open_load import Load
from tests.site.processes import Processes

pytestmark = pytest.mark.timeout(300)

ROUTERS = ("router-1", "router-2")
RATE = 12.0
LIMITS = Limits(ready_s=60, notice_s=20, idle_s=60, settle_s=1.0)
QUESTIONS = [Question("What is 3 plus 4?", "7"), Question("What is 12 plus 7?", "19")]


class Region:
    """Two routers behind a balancer, an edge, and room for a second one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "site"
        self.store = folder / "models" / "demo-edge"
        self.folder.mkdir()
        self.said: list[str] = []
        shutil.copytree(next((STORE / "demo-edge").glob("*")), self.store / "1")
        write_manifest(self.store / "1", kind=ArtifactKind.CHAT, name="demo-edge", version="1")
        self.services = Processes(self.folder, folder)
        edge = {"chat": {"artifact": str(self.store / "1"), "temperature": 0, "runtime": {"threads": 1}}}
        for name in ("edge", "edge-next"):
            self.services.add(name, edge)
        self.share_file = self.folder / "edge-next.share"
        self.share_file.write_text("0.0000\n")
        stable, canary = (self._target(name) for name in ("edge", "edge-next"))
        canary["canary"] = {"of": "shop", "share_file": str(self.share_file)}
        limits = {"lead_s": 1.5, "drain_s": 30.0}
        self.ports = [
            self.services.add(name, {"limits": limits, "targets": {"shop": stable, "shop-next": canary}})
            for name in ROUTERS
        ]

    def _target(self, edge: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.services.port(edge)}"
        # few slots, so that requests wait in the router for a target that is about to go
        lane = {"slots": 2, "backlog": 256}
        supports = ["response_format.json_schema"]
        return {
            "backend": "openai",
            "tier": "edge",
            "url": url,
            "chat_model": "demo-edge",
            "lane": lane,
            "supports": supports,
        }

    def start(self) -> None:
        for name in ("edge", *ROUTERS):
            self.services.replace(name)
        for name in ("edge", *ROUTERS):
            wait_ready(self.services, name, LIMITS.ready_s)
        for name in ROUTERS:
            wait_targets(self.services, name, {"shop"}, LIMITS.notice_s)

    def add_version(self, version: str, change: Callable[[Path], None] = lambda _: None) -> Path:
        """Another version of the model, whose manifest is right once it is changed."""
        folder = self.store / version
        shutil.copytree(self.store / "1", folder)
        change(folder)
        write_manifest(folder, kind=ArtifactKind.CHAT, name="demo-edge", version=version)
        return folder

    def upgrade(self) -> Upgrade:
        return Upgrade(
            services=self.services,
            routers=ROUTERS,
            stable=Edge("edge", "shop", self.folder / "edge.yaml"),
            canary=Edge("edge-next", "shop-next", self.folder / "edge-next.yaml"),
            share_file=self.share_file,
            model="demo-edge",
            questions=QUESTIONS,
            limits=LIMITS,
            say=self.said.append,
        )

    def roll(self) -> Roll:
        return Roll(self.services, ROUTERS, GoodFiles(self.folder), LIMITS, self.said.append)

    def versions(self) -> list[str]:
        """Of the edge's model, as each router knows it; all of them answer with it."""
        found = [httpx.get(f"http://127.0.0.1:{port}/v1/models", timeout=10).json()["data"] for port in self.ports]
        return [next(model["version"] for model in models if model["id"] == "shop") for models in found]

    def configure(self, router: str, **settings: Any) -> None:
        """Change a router's file."""
        path = self.folder / f"{router}.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | settings))


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    region = Region(tmp_path_factory.mktemp("region"))
    try:
        region.start()
        yield region
    finally:
        region.services.close()


@pytest.fixture
def load(region: Region) -> Iterator[Load]:
    """Load on the balancer from before the test's work to after it; not one request may fail."""
    with Balancer(region.ports) as balancer:
        time.sleep(0.5)
        with Load(f"http://127.0.0.1:{balancer.port}", RATE) as load:
            time.sleep(2)
            yield load
            time.sleep(1)
    print(f"{load.sent} sent, {len(load.failed)} failed; by target {dict(load.answered)}; {region.said}")
    region.said.clear()
    assert load.failed == []
    assert load.answered.total() == load.sent > RATE


def test_replicas_are_rolled(region: Region, load: Load) -> None:
    region.roll().run()

    assert [line.partition(" is new")[0] for line in region.said] == list(ROUTERS)


def test_a_replica_that_does_not_come_up_brings_the_good_files_back(region: Region, load: Load) -> None:
    region.roll().files.keep()
    for router in ROUTERS:
        region.configure(router, limits={"lead_s": 1.5, "drain_s": 31.0})
    region.configure("router-2", targets={})

    with pytest.raises(SiteError, match=r"router-2 died: .*router-1\.yaml, router-2\.yaml as before"):
        region.roll().run()

    assert "drain_s: 30.0" in (region.folder / "router-1.yaml").read_text()
    assert "drain_s: 31.0" in (region.folder / ".refused" / "router-1.yaml").read_text()
    assert region.services.running() == {"edge", *ROUTERS}


def test_one_replica_alone_is_not_rolled(region: Region) -> None:
    with pytest.raises(SiteError, match="needs two router replicas"):
        Roll(region.services, ROUTERS[:1], GoodFiles(region.folder)).run()


def test_a_new_version_takes_the_place_of_the_old_one(region: Region, load: Load) -> None:
    region.add_version("2")

    region.upgrade().run("2", shares=(0.25,), hold_s=2)

    assert read_artifact(region.folder / "edge.yaml").endswith("demo-edge/2")
    assert all(version.startswith("demo-edge/2@") for version in region.versions())
    assert region.services.running() == {"edge", *ROUTERS}
    assert load.answered["shop-next"] > 5


def test_a_damaged_version_is_never_started(region: Region, load: Load) -> None:
    before = region.versions()
    weights = region.add_version("damaged") / "model.onnx"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)

    with pytest.raises(SiteError, match=r"model\.onnx: its sha256 is .*; edge serves on with .*demo-edge/\d$"):
        region.upgrade().run("damaged", shares=(1.0,), hold_s=1)

    assert region.versions() == before
    assert region.services.running() == {"edge", *ROUTERS}


def test_a_version_that_fails_its_probes_gets_no_work(region: Region, load: Load) -> None:
    template = b'{"chat_template": "hello"}'
    region.add_version("wrong", lambda folder: replace_file(folder / "tokenizer_config.json", template))
    before = region.versions()

    with pytest.raises(SiteError, match=r"to the probe question 'What is 3 plus 4\?', without '7'; edge serves on"):
        region.upgrade().run("wrong", shares=(1.0,), hold_s=1)

    assert region.versions() == before
    assert load.answered["shop-next"] == 0
    assert region.services.running() == {"edge", *ROUTERS}


def test_a_version_that_dies_under_load_costs_no_request(region: Region, load: Load) -> None:
    region.add_version("mortal")
    before = region.versions()
    upgrade = region.upgrade()
    upgrade.start("mortal")

    killer = threading.Timer(1.5, region.services.kill, ["edge-next"])
    killer.start()
    with pytest.raises(SiteError, match=r"shop-next (failed|is down)"):
        upgrade.shift(0.5, hold_s=20)
    killer.join()
    upgrade.abandon()

    assert load.answered["shop-next"] > 0
    assert region.versions() == before
    assert region.services.running() == {"edge", *ROUTERS}


def test_what_does_not_run_is_not_promoted(region: Region, load: Load) -> None:
    with pytest.raises(SiteError, match="shop-next is down"):
        region.upgrade().finish()

    assert region.services.running() == {"edge", *ROUTERS}


def test_two_versions_are_measured_side_by_side(region: Region) -> None:
    region.add_version("3")
    upgrade = region.upgrade()
    upgrade.run("3", shares=(0.5,), hold_s=0.5, stay=True)
    url = f"http://127.0.0.1:{region.ports[0]}"
    before = read_canaries(url)
    with Load(url, RATE) as load:
        time.sleep(3)

    after = read_canaries(url)
    upgrade.abandon()

    assert load.failed == []
    for name, version in (("shop", "demo-edge/2@"), ("shop-next", "demo-edge/3@")):
        assert after[name][1:3] == ["50%", "yes"]
        assert after[name][-1].startswith(version)
        assert int(after[name][4]) - int(before[name][4]) == load.answered[name] > 0
        assert int(after[name][-2].replace(",", "")) > 0


def read_canaries(url: str) -> dict[str, list[str]]:
    """The rows that `hybrid canary` prints, by target."""
    result = CliRunner().invoke(main, ["canary", "--url", url])
    assert result.exit_code == 0, result.output
    return {row.split()[0]: row.split() for row in result.output.splitlines()[1:]}
