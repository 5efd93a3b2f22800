"""Router and Triton over mutual TLS: every way that the router speaks to it, and nobody without a certificate."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from click.testing import CliRunner

from deploy.site.certificates import issue
from loadtests.site import Site, running_site
from router.cli import main

EASY = {"model": "cloud", "messages": [{"role": "user", "content": "What is 3 plus 4?"}], "temperature": 0}


def tls(folder: Path) -> dict[str, str]:
    """The section of both parts, for the files in `folder`."""
    names = {"ca_file": "ca.pem", "certificate_file": "certificate.pem", "key_file": "certificate_key.pem"}
    return {key: str(folder / name) for key, name in names.items()}


def encrypt(site: Site, folder: Path) -> None:
    """Have Triton ask for certificates, and the router show one."""
    issue(folder / "authority", folder / "cloud", "cloud", ["127.0.0.1"], days=1)
    issue(folder / "authority", folder / "edge", "edge", [], days=1)
    site.configure("triton", "tls", **tls(folder / "cloud"))
    show(site, tls(folder / "edge"))


def show(site: Site, section: dict[str, str] | None) -> None:
    """What the router's target has for `tls` from its next start on."""
    target = yaml.safe_load((site.work / "router.yaml").read_text())["targets"]["cloud-demo"]
    site.configure("router", "targets", **{"cloud-demo": {**target, "tls": section}})


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with mutual TLS between router and Triton."""
    folder = tmp_path_factory.mktemp("tls")
    with running_site(folder / "site", lambda site: encrypt(site, folder)) as site:
        yield site


def test_whole_answers_streams_and_embeddings_pass(encrypted: Site) -> None:
    whole = httpx.post(f"{encrypted.url}/v1/chat/completions", json=EASY, timeout=30)
    stream = httpx.post(f"{encrypted.url}/v1/chat/completions", json={**EASY, "stream": True}, timeout=30)
    vectors = httpx.post(f"{encrypted.url}/v1/embeddings", json={"model": "cloud", "input": "hello"}, timeout=30)

    assert whole.json()["choices"][0]["message"]["content"].endswith("7")
    assert stream.text.endswith("data: [DONE]\n\n")
    assert vectors.json()["data"][0]["embedding"]
    assert {answer.headers["x-route-target"] for answer in (whole, stream, vectors)} == {"cloud-demo"}


@pytest.mark.parametrize("shown", ["nothing", "a stranger's certificate"])
def test_a_router_without_the_right_certificate_finds_the_cloud_down(
    encrypted: Site, tmp_path: Path, shown: str
) -> None:
    before = yaml.safe_load((encrypted.work / "router.yaml").read_text())["targets"]["cloud-demo"]["tls"]
    issue(tmp_path / "other", tmp_path / "stranger", "stranger", [], days=1)
    stranger = tls(tmp_path / "stranger") | {"ca_file": before["ca_file"]}
    encrypted.stop("router")
    show(encrypted, None if shown == "nothing" else stranger)
    try:
        encrypted.start("router")
        encrypted.wait_target("edge-demo", up=True)
        refused = httpx.post(f"{encrypted.url}/v1/chat/completions", json=EASY, timeout=30)
        targets = httpx.get(f"{encrypted.url}/health/ready", timeout=5).json()["targets"]
    finally:
        encrypted.stop("router")
        show(encrypted, before)
        encrypted.start("router")
        encrypted.wait_target("cloud-demo", up=True)

    assert targets == {"edge-demo": True, "cloud-demo": False}
    assert refused.headers.get("x-route-target") != "cloud-demo"


def test_a_missing_file_stops_the_start_by_name(encrypted: Site, tmp_path: Path) -> None:
    content = yaml.safe_load((encrypted.work / "router.yaml").read_text())
    content["targets"]["cloud-demo"]["tls"]["key_file"] = "absent.pem"
    path = tmp_path / "router.yaml"
    path.write_text(yaml.safe_dump(content))

    result = CliRunner().invoke(main, ["check", str(path)])

    assert result.exit_code == 1
    assert "targets.cloud-demo.tls.key_file" in result.output
