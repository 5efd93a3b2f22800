"""The demo site in containers: up from nothing, closed to all but the endpoint, and back by itself whatever happens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from deploy.images.parts import ROOT
from loadtests.small_disk import SmallDisk
from tests.deploy.containers import ContainerSite, crash, docker, wait_until

pytestmark = pytest.mark.deploy
SERVICES = ("router", "edge", "triton")


def test_it_is_healthy_from_nothing_within_90_s(demo: ContainerSite) -> None:
    assert demo.took_s <= 90
    demo.wait_targets(edge_demo=True, cloud_demo=True)


def test_the_sdk_suite_passes_against_it(demo: ContainerSite) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/site/test_sdk.py"],
        cwd=ROOT,
        env=os.environ | {"HYBRID_URL": demo.url, "HYBRID_API_KEY": demo.key},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"\b[2-9]\d passed", done.stdout)


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_can_do_nothing_but_its_work(demo: ContainerSite, service: str) -> None:
    said = demo.inspect(service)
    status = dict(
        line.split(":\t", 1)
        for line in demo.python(service, "print(open('/proc/1/status').read())").splitlines()
        if ":\t" in line
    )

    assert said["Config"]["User"] == "10001:10001"
    assert said["HostConfig"]["ReadonlyRootfs"] is True
    assert said["HostConfig"]["CapDrop"] == ["ALL"]
    assert said["HostConfig"]["Privileged"] is False
    assert said["HostConfig"]["Memory"] > 0
    assert said["HostConfig"]["PidsLimit"] == 512
    assert said["HostConfig"]["LogConfig"]["Config"] == {"max-file": "3", "max-size": "10m"}
    assert "no-new-privileges:true" in said["HostConfig"]["SecurityOpt"]
    assert set(status["Uid"].split()) == {"10001"}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    refused = demo.python(service, "open('/opt/hybrid/written', 'w')", check=False)
    assert "Read-only file system" in refused


def test_only_the_endpoint_is_published(demo: ContainerSite) -> None:
    published = {
        service: [
            binding for bound in demo.inspect(service)["NetworkSettings"]["Ports"].values() for binding in bound or ()
        ]
        for service in SERVICES
    }

    port = demo.url.rpartition(":")[2]
    assert published == {"router": [{"HostIp": "127.0.0.1", "HostPort": port}], "edge": [], "triton": []}


@pytest.mark.parametrize("service", ["edge", "triton"])
def test_the_models_parts_reach_nobody_outside(demo: ContainerSite, outside: str, service: str) -> None:
    host, _, port = outside.partition(":")
    code = f"import socket; socket.create_connection(({host!r}, {port}), 3)"

    assert demo.python("router", code, check=False) == ""
    assert "Error" in demo.python(service, code, check=False)


def test_no_secret_shows_in_inspection_environment_or_logs(demo: ContainerSite) -> None:
    assert demo.ask("What is 3 plus 4?").status_code == 200
    assert httpx.get(f"{demo.url}/v1/models", headers={"authorization": "Bearer hy-wrong"}).status_code == 401
    secrets = {demo.key}
    for file in (demo.folder / "secrets").iterdir():
        secrets |= {word for word in re.split(r"[\s:,{}]+", file.read_text()) if len(word) >= 16}

    for container in demo.containers().values():
        environment = docker("exec", container, "python", "-c", "print(open('/proc/1/environ').read())")
        shown = docker("inspect", container) + environment + docker("logs", container)
        assert not [secret for secret in secrets if secret in shown]
    assert len(secrets) >= 2


def test_no_prompt_shows_in_logs(demo: ContainerSite) -> None:
    marker = "zanzibar-93417"
    for model in ("edge", "cloud", "auto"):
        assert demo.ask(f"Reverse the word {marker}.", model).status_code == 200

    logs = {service: docker("logs", container) for service, container in demo.containers().items()}

    assert "/v1/chat/completions" in logs["router"]
    assert not [service for service, log in logs.items() if marker in log]


def stored(site: ContainerSite, prompt: str) -> None:
    """Ask until the answer comes from the cache."""
    wait_until(lambda: site.ask(prompt).headers.get("x-cache") == "hit", f"a cached answer to {prompt!r}")


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_part_comes_back_by_itself(demo: ContainerSite, service: str) -> None:
    stored(demo, "What is 8 plus 5?")
    before = demo.pid(service)

    crash(before)
    wait_until(lambda: demo.pid(service) not in {0, before}, f"a new {service}", limit_s=90)
    demo.wait_targets(limit_s=120, edge_demo=True, cloud_demo=True)

    assert demo.inspect(service)["RestartCount"] >= 1
    assert demo.ask("What is 8 plus 5?").headers["x-cache"] == "hit"


def test_a_part_at_its_memory_limit_is_ended_and_comes_back(demo: ContainerSite) -> None:
    container, before = demo.container("edge"), demo.pid("edge")
    docker("update", "--memory", "600m", "--memory-swap", "600m", container)
    # the kernel ends who has the most; say that it be the part, not the hog beside it
    Path(f"/proc/{before}/oom_score_adj").write_text("1000")

    demo.python("edge", "b = bytearray(590_000_000)\nfor i in range(0, len(b), 4096): b[i] = 1", check=False)
    wait_until(lambda: demo.pid("edge") not in {0, before}, "a new edge", limit_s=90)
    demo.wait_targets(limit_s=120, edge_demo=True, cloud_demo=True)

    events = docker(
        "events", "--since", "10m", "--until", "0s", "--filter", f"container={container}", "--filter", "event=oom"
    )
    assert "oom" in events
    assert demo.ask("What is 3 plus 4?", "edge").status_code == 200


def test_after_a_reboot_it_serves_again_with_its_cache(demo: ContainerSite) -> None:
    stored(demo, "What is 7 plus 7?")
    containers = demo.containers()

    docker("stop", "-t", "20", *containers.values())
    assert demo.targets() == {}
    docker("start", containers["router"], containers["triton"], containers["edge"])
    took_s = demo.wait_targets(limit_s=120, edge_demo=True, cloud_demo=True)

    print(f"serving again {took_s:.1f} s after the start")
    assert demo.ask("What is 7 plus 7?").headers["x-cache"] == "hit"


def test_a_full_disk_costs_the_cache_only(demo: ContainerSite, disk: SmallDisk) -> None:
    stored(demo, "What is 9 plus 6?")
    restarts = demo.inspect("router")["RestartCount"]
    ballast = disk.fill()

    answers = [demo.ask(f"What is {n} plus 4?") for n in range(10, 20)]
    demo.wait_targets(edge_demo=True, cloud_demo=True)
    ballast.unlink()

    assert [answer.status_code for answer in answers] == [200] * 10
    assert demo.inspect("router")["RestartCount"] == restarts
    assert demo.ask("What is 9 plus 6?").headers["x-cache"] == "hit"


def test_it_goes_down_clean(demo: ContainerSite) -> None:
    demo.remove()

    name = f"label=com.docker.compose.project={demo.folder.name}"
    assert docker("ps", "-aq", "--filter", name) == ""
    assert docker("network", "ls", "-q", "--filter", name) == ""
    assert docker("volume", "ls", "-q", "--filter", name) == ""
