import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.site.scaffold import Answers, Kind
from loadtests.small_disk import SmallDisk
from tests.deploy.containers import (
    ContainerSite,
    container_site,
    docker,
    make_images,
    missing_engine,
    settings,
    wait_until,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first of these tests builds every image, on a machine that may be busy."""
    for item in items:
        if item.get_closest_marker("deploy"):
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def images() -> None:
    """Every image, built from this checkout."""
    if why := missing_engine():
        pytest.skip(why)
    make_images()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    """What the demo's cache volume is on."""
    small = SmallDisk(tmp_path_factory.mktemp("disk"), megabytes=64)
    small.mount()
    os.chown(small.folder, 10001, 10001)
    yield small
    small.unmount()


@pytest.fixture(scope="module")
def demo(images: None, disk: SmallDisk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerSite]:
    """The demo site, running in containers."""
    folder: Path = tmp_path_factory.mktemp("sites") / "hybrid-test-demo"
    on_disk = {"driver": "local", "driver_opts": {"type": "none", "o": "bind", "device": str(disk.folder)}}

    def configure(site: ContainerSite) -> None:
        site.edit("compose.yaml", lambda content: content["volumes"].update(cache=on_disk))

    with container_site(folder, Answers(Kind.DEMO, folder.name, settings()), configure) as site:
        yield site


@pytest.fixture(scope="session")
def nowhere(images: None) -> Iterator[str]:
    """HOST:PORT of a cloud that is not there: this host's address on a network of the tests, where nothing listens."""
    docker("network", "create", "hybrid-test-nowhere")
    try:
        yield docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "hybrid-test-nowhere") + ":9"
    finally:
        docker("network", "rm", "hybrid-test-nowhere")


@pytest.fixture(scope="module")
def outside() -> Iterator[str]:
    """HOST:PORT of a server beyond this host: in a network namespace, behind a link of its own."""
    setup = (
        "ip netns add hybrid-outside",
        "ip link add hybrid-out type veth peer name hybrid-in netns hybrid-outside",
        "ip addr add 10.231.77.1/30 dev hybrid-out",
        "ip link set hybrid-out up",
        "ip -n hybrid-outside addr add 10.231.77.2/30 dev hybrid-in",
        "ip -n hybrid-outside link set hybrid-in up",
        "ip -n hybrid-outside route add default via 10.231.77.1",
    )
    serve = "ip netns exec hybrid-outside python3 -m http.server --bind 10.231.77.2 8099"
    try:
        for command in setup:
            subprocess.run(command.split(), check=True, capture_output=True, timeout=10)
        with subprocess.Popen(serve.split(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            wait_until(lambda: _listens("10.231.77.2", 8099), "a server outside")
            yield "10.231.77.2:8099"
            server.terminate()
    finally:
        subprocess.run(["ip", "netns", "del", "hybrid-outside"], check=False, capture_output=True, timeout=10)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True
