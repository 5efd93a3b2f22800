"""The regional site: three replicas behind one address, one shared cache, and no answer lost when a replica goes."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from deploy.site.scaffold import Answers, Kind
from tests.deploy.containers import ContainerSite, container_site, crash, docker, settings, wait_until

pytestmark = pytest.mark.deploy
REPLICAS = ("router-1", "router-2", "router-3")


@pytest.fixture(scope="module")
def region(nowhere: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerSite]:
    """The site, whose cloud is not there."""
    folder = tmp_path_factory.mktemp("sites") / "hybrid-test-region"
    answers = Answers(Kind.REGIONAL, folder.name, settings(), cloud=nowhere, authority=folder.parent / "authority")
    with container_site(folder, answers) as site:
        wait_until(
            lambda: all(site.inspect(name)["State"]["Health"]["Status"] == "healthy" for name in REPLICAS), "3 up"
        )
        yield site


def served(site: ContainerSite) -> dict[str, int]:
    """How many chats each replica has answered."""
    return {name: docker("logs", site.container(name)).count("/v1/chat/completions") for name in REPLICAS}


def test_every_replica_answers_and_they_share_what_they_remember(region: ContainerSite) -> None:
    prompt = "What is 9 plus 9?"
    wait_until(lambda: region.ask(prompt, "edge").headers.get("x-cache") == "hit", "a cached answer")

    answers = [region.ask(prompt, "edge") for _ in range(12)]

    assert {answer.status_code for answer in answers} == {200}
    assert [answer.headers["x-cache"] for answer in answers] == ["hit"] * 12
    assert min(served(region).values()) >= 1


def test_only_the_balancer_is_published(region: ContainerSite) -> None:
    published = [
        service for service in region.containers() if any(region.inspect(service)["NetworkSettings"]["Ports"].values())
    ]

    assert published == ["balancer"]


def test_a_crashed_replica_costs_no_request(region: ContainerSite) -> None:
    victim = region.pid("router-2")

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(region.ask, f"What is {n} plus {n + 1}?", "edge") for n in range(10, 50)]
        crash(victim)
        statuses = [one.result().status_code for one in asked]
    wait_until(lambda: region.pid("router-2") not in {0, victim}, "a new replica", limit_s=90)

    assert statuses == [200] * 40
    assert region.ask("What is 9 plus 9?", "edge").headers["x-cache"] == "hit"
