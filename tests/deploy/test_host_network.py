"""An edge site whose endpoint is in the host's own network; all else stays where only this host reaches it."""

from collections.abc import Iterator
from contextlib import closing
from socket import create_connection, socket

import pytest

from deploy.site.scaffold import Answers, Kind
from tests.deploy.containers import ContainerSite, container_site, settings

pytestmark = pytest.mark.deploy
SUBNET = "172.31.213"


@pytest.fixture(scope="module")
def site(nowhere: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerSite]:
    """The site, whose cloud is not there."""
    folder = tmp_path_factory.mktemp("sites") / "hybrid-test-host"
    env = settings(SITE_SUBNET=SUBNET)
    answers = Answers(
        Kind.EDGE_SITE, folder.name, env, cloud=nowhere, authority=folder.parent / "authority", host_network=True
    )
    with container_site(folder, answers) as site:
        site.wait_targets(site_edge=True, site_cloud=False)
        yield site


def test_it_answers_on_the_hosts_own_port(site: ContainerSite) -> None:
    answer = site.ask("What is 3 plus 4?")

    assert (answer.status_code, answer.headers["x-route-tier"]) == (200, "edge")
    assert site.inspect("router")["HostConfig"]["NetworkMode"] == "host"
    assert site.inspect("router")["NetworkSettings"]["Ports"] == {}


def test_the_edge_has_no_way_in_but_from_this_host(site: ContainerSite, outside: str) -> None:
    host, _, port = outside.partition(":")
    code = f"import socket; socket.create_connection(({host!r}, {port}), 3)"

    with closing(create_connection((f"{SUBNET}.2", 8081), 3)) as reached:
        assert isinstance(reached, socket)
    assert "Error" in site.python("edge", code, check=False)
    assert not any(site.inspect("edge")["NetworkSettings"]["Ports"].values())
