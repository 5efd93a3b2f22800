"""The demo site's bundle on a box without a network: installed by a shell, ready, answering; cut off and resumed."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from deploy.images.contents import bill_of_materials, foreign_packages
from deploy.images.parts import Part
from deploy.site.archive import read_small
from deploy.site.manifest import Manifest
from deploy.site.scaffold import Answers, Kind, scaffold, valkey_user
from deploy.site.signing import PRIVATE_KEY, PUBLIC_KEY
from loadtests.ports import free_port
from loadtests.site import STORE
from tests.deploy.box import NAMESPACE, Box, offline_box
from tests.deploy.containers import SERVERS, docker, settings, wait_until
from tests.deploy.test_site_files import change, run

pytestmark = [pytest.mark.deploy, pytest.mark.timeout(1200)]
TAG = "bundle-test"
# runs in the namespace: URL, key, prompt
ASK = """
import httpx, sys
url, key, prompt = sys.argv[1:]
body = {"model": "auto", "messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 100}
headers = {"authorization": f"Bearer {key}"}
answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60, trust_env=False)
print(answer.raise_for_status().json()["choices"][0]["message"]["content"])
"""
METRICS = "import httpx, sys; print(httpx.get(f'{sys.argv[1]}/metrics', trust_env=False).text)"


@dataclass
class Installed:
    """What was made, moved and installed, and what was seen on the way."""

    box: Box
    site: Path
    keys: Path
    bundle: Path
    target: Path
    port: int
    key: str = ""
    images_before: str = ""
    left_by_cut: list[str] = field(default_factory=list)

    def install(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Install the bundle, which must succeed."""
        done = self.box.install(self.bundle, self.keys / PUBLIC_KEY, str(self.target), *more)
        assert done.returncode == 0, done.stderr
        return done

    def ask(self, prompt: str) -> str:
        """A chat answer, asked for inside the namespace."""
        url = f"http://127.0.0.1:{self.port}"
        return self.box.run(sys.executable, "-c", ASK, url, self.key, prompt).stdout.strip()

    def containers(self) -> set[str]:
        """Ids of what runs of the site."""
        own = f"label=com.docker.compose.project={self.site.name}"
        return set(self.box.run("docker", "ps", "-q", "--filter", own).stdout.split())


def make_bundle(site: Path, keys: Path, out: Path) -> Path:
    """Through the command, its time and size printed."""
    began = time.monotonic()
    made = run("bundle", str(site), "-o", str(out), "--key", str(keys / PRIVATE_KEY))
    assert made.exit_code == 0, made.output
    print(f"bundle: {out.stat().st_size / 1e6:.0f} MB, made in {time.monotonic() - began:.1f} s")
    return out


@pytest.fixture(scope="module")
def made(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The site that bundles are made of, and the folder of keys; the images under a name that no other test builds."""
    folder = tmp_path_factory.mktemp("maker")
    names = {part: f"hybrid-{part}:{TAG}" for part in Part}
    for part, name in names.items():
        docker("tag", part.image("dev"), name)
    answers = ["--address", "127.0.0.1", "--port", "8080", "--models", str(STORE.resolve()), "--set", f"VERSION={TAG}"]
    for arguments in (["new", str(folder / "shop"), "--kind", "demo", *answers], ["key", str(folder / "keys")]):
        assert run(*arguments).exit_code == 0
    yield folder / "shop", folder / "keys"
    docker("rmi", *names.values())


@pytest.fixture(scope="module")
def installed(made: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The site on the box: a first try killed while the engine loads, then a second one."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("dockerd"):
        pytest.skip("a network namespace with an engine needs root, iproute2 and dockerd")
    site, keys = made
    with offline_box(tmp_path_factory.mktemp("box") / "disk") as box:
        bundle, target, port = box.folder / "shop.bundle", box.folder / "srv/shop", free_port()
        shutil.move(make_bundle(site, keys, site.with_name("shop.bundle")), bundle)
        it = Installed(box, site, keys, bundle, target, port, images_before=box.run("docker", "images", "-q").stdout)
        options = (str(target), "--set", f"ENDPOINT_PORT={port}")
        box.install_until("loading the images", 2.0, bundle, keys / PUBLIC_KEY, *options)
        it.left_by_cut = [str(path) for path in target.rglob("*")]
        began = time.monotonic()
        it.key = it.install(*options[1:]).stdout.strip()
        print(f"installed and ready in {time.monotonic() - began:.1f} s")
        yield it


def test_packages_of_an_image_of_others_are_listed_without_running_it(images: None) -> None:
    packages = {package.name: package.version for package in foreign_packages(SERVERS)["deb"]}

    assert {"redis-server", "haproxy", "libc6"} <= packages.keys()
    assert all(packages.values())
    assert '"pkg:deb/debian/haproxy@' in bill_of_materials(SERVERS, "local", ours=False)
    assert docker("ps", "-aq", "--filter", f"ancestor={SERVERS}", "--filter", "status=created") == ""


def test_the_box_has_neither_network_nor_images_nor_python(installed: Installed) -> None:
    routes = subprocess.run(
        ["ip", "-n", NAMESPACE, "route", "show", "default"], capture_output=True, text=True, check=True, timeout=10
    )

    assert installed.images_before == ""
    assert routes.stdout == ""
    assert installed.box.run("sh", "-c", "command -v python3 || command -v python", check=False).returncode != 0
    reach = "import socket; socket.create_connection(('192.0.2.1', 443), 3)"
    assert "unreachable" in installed.box.run(sys.executable, "-c", reach, check=False).stderr


def test_a_cut_run_left_nothing_half_done(installed: Installed) -> None:
    assert installed.left_by_cut == []


def test_it_answers_through_its_endpoint(installed: Installed) -> None:
    assert installed.ask("What is 3 plus 4?").endswith("7")


def test_its_secrets_are_its_own(installed: Installed) -> None:
    secrets = installed.target / "secrets"

    assert secrets.stat().st_mode & 0o777 == 0o700
    assert (secrets / "keys.yaml").read_bytes() != (installed.site / "secrets/keys.yaml").read_bytes()
    assert installed.key not in (secrets / "keys.yaml").read_text()


def test_what_runs_is_what_was_bundled(installed: Installed) -> None:
    manifest = Manifest.parse(read_small(installed.bundle, "manifest")[0])
    ids = installed.box.run("docker", "inspect", "-f", "{{.Image}}", *sorted(installed.containers())).stdout.split()

    assert set(ids) == {image.id for image in manifest.images}
    for image in manifest.images:
        assert (installed.target / image.materials).is_file()


def test_another_run_changes_nothing(installed: Installed) -> None:
    before = installed.containers(), (installed.target / "router.yaml").stat().st_mtime_ns

    done = installed.install()

    assert done.stdout == ""
    assert (installed.containers(), (installed.target / "router.yaml").stat().st_mtime_ns) == before
    assert len(before[0]) == 3


def test_a_spoilt_bundle_leaves_what_runs_alone(installed: Installed) -> None:
    before = installed.containers()
    spoilt = installed.bundle.with_name("spoilt.bundle")
    shutil.copyfile(installed.bundle, spoilt)
    with spoilt.open("r+b") as file:
        file.seek(100_000_000)
        (byte,) = file.read(1)
        file.seek(100_000_000)
        file.write(bytes([byte ^ 1]))

    refused = installed.box.install(spoilt, installed.keys / PUBLIC_KEY, str(installed.target))
    spoilt.unlink()

    assert (refused.returncode, "damaged since it was signed" in refused.stderr) == (5, True)
    assert installed.containers() == before


def test_an_edge_site_takes_its_certificates_makes_its_passwords_and_serves_without_its_cloud(
    installed: Installed, tmp_path: Path
) -> None:
    box, site, target, port = installed.box, tmp_path / "till", installed.box.folder / "srv/till", free_port()
    env = settings(VERSION=TAG, ENDPOINT_PORT=str(port))
    scaffold(site, Answers(Kind.EDGE_SITE, site.name, env, cloud="192.0.2.1:8001", authority=tmp_path / "authority"))
    (tmp_path / "given").mkdir()
    for name in ("ca.pem", "certificate.pem", "certificate_key.pem"):
        shutil.copy(site / "secrets" / name, tmp_path / "given" / name)
    bundle = make_bundle(site, installed.keys, box.folder / "till.bundle")
    key = installed.keys / PUBLIC_KEY

    refused = box.install(bundle, key, str(target))
    done = box.install(bundle, key, str(target), "--secrets", str(tmp_path / "given"))

    assert (refused.returncode, "ca.pem certificate.pem certificate_key.pem" in refused.stderr) == (3, True)
    assert done.returncode == 0, done.stderr
    url = f"http://127.0.0.1:{port}"
    assert (
        box.run(sys.executable, "-c", ASK, url, done.stdout.strip(), "What is 3 plus 4?").stdout.strip().endswith("7")
    )
    made = target / "secrets"
    assert (made / "valkey_users").read_text().strip() == valkey_user((made / "valkey_password").read_text().strip())
    written = re.compile(r'^hybrid_cache_writes_total\{cache_tier="shared"\} [1-9]', re.MULTILINE)
    wait_until(
        lambda: bool(written.search(box.run(sys.executable, "-c", METRICS, url).stdout)), "an answer kept in Valkey"
    )
    box.run("sh", "-c", f"cd {target} && docker-compose down -v")


def test_a_later_bundle_replaces_the_configuration_and_keeps_keys_and_answers(installed: Installed) -> None:
    before = installed.containers()
    change("router.yaml", "threshold: 0.5", "threshold: 0.4")(installed.site)
    installed.bundle.unlink()
    shutil.move(make_bundle(installed.site, installed.keys, installed.site.with_name("later.bundle")), installed.bundle)

    done = installed.install()

    assert done.stdout == ""
    assert "the images are here already" in done.stderr
    assert yaml.safe_load((installed.target / "router.yaml").read_text())["policy"]["threshold"] == 0.4
    assert f"ENDPOINT_PORT={installed.port}\n" in (installed.target / ".env").read_text()
    assert not installed.containers() & before
    assert installed.ask("What is 8 plus 5?").endswith("13")
