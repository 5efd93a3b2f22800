"""An edge site and a cloud site as two compose projects on networks of their own, with mutual TLS between them."""

import ipaddress
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.site.certificates import issue
from deploy.site.scaffold import Answers, Kind
from tests.deploy.containers import ContainerSite, container_site, docker, settings

pytestmark = pytest.mark.deploy
MARKER = "quixotic-50317"
GRPC_PORT = 8001
_ETH_ALL = 3


@pytest.fixture(scope="module")
def between(images: None) -> Iterator[str]:
    """The address that the cloud is reached by: the host's, on a network that is neither site's."""
    docker("network", "create", "hybrid-test-between")
    try:
        yield docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "hybrid-test-between")
    finally:
        docker("network", "rm", "hybrid-test-between")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Who signs for both sites."""
    return tmp_path_factory.mktemp("authority")


@pytest.fixture(scope="module")
def cloud(between: str, authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerSite]:
    """The cloud site, on the CPU."""
    folder = tmp_path_factory.mktemp("sites") / "hybrid-test-cloud"
    env = settings(CLOUD_ADDRESS=between, CLOUD_PORT=str(GRPC_PORT), COMPOSE_FILE="compose.yaml")
    answers = Answers(Kind.CLOUD_SITE, folder.name, env, authority=authority, hosts=(between,))
    with container_site(folder, answers) as site:
        yield site


@pytest.fixture(scope="module")
def edge(
    cloud: ContainerSite, between: str, authority: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ContainerSite]:
    """The edge site."""
    folder = tmp_path_factory.mktemp("sites") / "hybrid-test-edge"
    address = f"{between}:{GRPC_PORT}"
    answers = Answers(Kind.EDGE_SITE, folder.name, settings(), cloud=address, authority=authority)
    with container_site(folder, answers) as site:
        site.wait_targets(site_edge=True, site_cloud=True)
        yield site


class Capture:
    """What crossed a bridge, whole frames."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def payloads(self, port: int) -> list[bytes]:
        """IPv4 packets of TCP to or from a port."""
        return [frame for frame in self.frames if port in _tcp_ports(frame)]


def _tcp_ports(frame: bytes) -> tuple[int, ...]:
    if frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_TCP:
        return ()
    begin = 14 + (frame[14] & 0xF) * 4
    return struct.unpack("!HH", frame[begin : begin + 4])


@contextmanager
def capturing(network: str) -> Iterator[Capture]:
    """Record everything on a docker network around the body."""
    bridge = "br-" + docker("network", "inspect", "-f", "{{.Id}}", network)[:12]
    capture, over = Capture(), threading.Event()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_ALL)) as tap:
        tap.bind((bridge, 0))
        tap.settimeout(0.2)

        def record() -> None:
            while not over.is_set():
                try:
                    capture.frames.append(tap.recv(65_535))
                except TimeoutError:
                    continue

        thread = threading.Thread(target=record)
        thread.start()
        try:
            yield capture
        finally:
            over.set()
            thread.join()


def test_no_plain_text_prompt_crosses_between_the_sites(edge: ContainerSite) -> None:
    with capturing(f"{edge.folder.name}_endpoint") as capture:
        whole = edge.ask(f"Reverse the word {MARKER}.", "cloud")
        streamed = edge.ask(f"Say the word {MARKER} again.", "cloud", stream=True)

    assert (whole.status_code, streamed.status_code) == (200, 200)
    assert whole.headers["x-route-target"] == streamed.headers["x-route-target"] == "site-cloud"
    between, endpoint = capture.payloads(GRPC_PORT), capture.payloads(8080)
    assert sum(map(len, between)) > 2000
    # the tap does see prompts where they are in the clear: the endpoint's own HTTP, on this machine
    assert any(MARKER.encode() in frame for frame in endpoint)
    assert not any(MARKER.encode() in frame for frame in between)


@pytest.mark.parametrize("shown", ["nothing", "a stranger's certificate"])
def test_the_cloud_lets_in_nobody_without_its_authoritys_certificate(
    edge: ContainerSite, between: str, tmp_path: Path, shown: str
) -> None:
    secrets = edge.folder / "secrets"
    stranger = tmp_path / "secrets"
    issue(tmp_path / "other", stranger, "stranger", [], days=1)

    assert enters(f"{between}:{GRPC_PORT}", secrets / "ca.pem", secrets)
    assert not enters(f"{between}:{GRPC_PORT}", secrets / "ca.pem", None if shown == "nothing" else stranger)


def enters(address: str, ca: Path, own: Path | None) -> bool:
    """Whether a gRPC client that shows the certificate in `own` is let in."""
    files = (own / "certificate_key.pem", own / "certificate.pem") if own else ()
    # a process of its own, left at once: gRPC's threads go on trying
    code = (
        "import grpc, os, sys; from pathlib import Path; address, *files = sys.argv[1:]\n"
        "credentials = grpc.ssl_channel_credentials(*(Path(file).read_bytes() for file in files))\n"
        "try: grpc.channel_ready_future(grpc.secure_channel(address, credentials)).result(timeout=5)\n"
        "except grpc.FutureTimeoutError: os._exit(7)\n"
        "os._exit(0)"
    )
    command = [sys.executable, "-c", code, address, str(ca), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in {0, 7}, done.stderr
    return done.returncode == 0


def test_only_endpoint_and_grpc_are_published(edge: ContainerSite, cloud: ContainerSite, between: str) -> None:
    published = {
        (site.folder.name, service, port, bound[0]["HostIp"])
        for site in (edge, cloud)
        for service in site.containers()
        for port, bound in site.inspect(service)["NetworkSettings"]["Ports"].items()
        if bound
    }

    assert published == {
        (edge.folder.name, "router", "8080/tcp", "127.0.0.1"),
        (cloud.folder.name, "router", "8080/tcp", "127.0.0.1"),
        (cloud.folder.name, "triton", f"{GRPC_PORT}/tcp", between),
    }
    assert ipaddress.ip_address(between).is_private


def test_without_the_cloud_the_edge_site_goes_on_and_with_it_routing_returns(
    edge: ContainerSite, cloud: ContainerSite
) -> None:
    cloud.compose.stop()
    edge.wait_targets(site_edge=True, site_cloud=False)
    alone = edge.ask("What is 4817 minus 3956?")
    refused = edge.ask("What is 3 plus 5?", "cloud")

    began = time.monotonic()
    cloud.compose.up()
    edge.wait_targets(limit_s=120, site_edge=True, site_cloud=True)
    back_s = time.monotonic() - began
    again = edge.ask("What is 3 plus 6?", "cloud")

    print(f"routing returned {back_s:.1f} s after the cloud was started")
    assert (alone.status_code, alone.headers["x-route-tier"]) == (200, "edge")
    assert refused.status_code in {200, 503}
    assert (again.status_code, again.headers["x-route-tier"]) == (200, "cloud")


def test_an_edge_site_starts_without_its_cloud(edge: ContainerSite, cloud: ContainerSite) -> None:
    cloud.compose.stop()
    edge.compose.stop()

    edge.start()
    answer = edge.ask("What is 6 plus 3?")
    cloud.compose.up()

    assert (answer.status_code, answer.headers["x-route-tier"]) == (200, "edge")
