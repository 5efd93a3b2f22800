"""`hybrid site new` and `check`: every kind is good as it comes, and a fault in any file is found."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from deploy.site.certificates import CertificateFiles, find_certificate_faults, issue
from deploy.site.compose import Port, _port
from deploy.site.scaffold import SITES, Answers, Kind, scaffold
from edge.engine.settings import read_settings
from loadtests.site import STORE
from router.admission import load_admission
from router.cli import main

needs_compose = pytest.mark.skipif(
    shutil.which("docker-compose") is None and shutil.which("docker") is None, reason="no compose is installed"
)
CLOUD = "cloud.example.org:8001"


def run(*arguments: str) -> Result:
    """One call, in this process."""
    return CliRunner().invoke(main, ["site", *arguments])


def make(folder: Path, kind: Kind, *, host_network: bool = False) -> str:
    """A site of a kind in `folder`; returns its key."""
    settings = {"MODELS": str(STORE.resolve()), "COMPOSE_FILE": "compose.yaml"}
    return scaffold(
        folder,
        Answers(
            kind,
            folder.name,
            settings,
            CLOUD,
            folder.parent / "authority",
            ("cloud.example.org",),
            host_network=host_network,
        ),
    )


def change(file: str, old: str, new: str) -> Callable[[Path], None]:
    """Replace text in a file of a site; it must be there."""

    def apply(folder: Path) -> None:
        path = folder / file
        text = path.read_text()
        assert re.search(old, text, re.MULTILINE), f"{old} is not in {file}"
        path.chmod(0o644)
        path.write_text(re.sub(old, new, text, flags=re.MULTILINE))

    return apply


@needs_compose
@pytest.mark.parametrize("kind", Kind)
def test_a_new_site_is_good(tmp_path: Path, kind: Kind) -> None:
    make(tmp_path / "shop", kind)

    result = run("check", str(tmp_path / "shop"))

    assert result.output.endswith("good.\n")
    assert result.exit_code == 0


@needs_compose
def test_the_gpu_of_a_cloud_site_is_a_reservation_that_compose_takes(tmp_path: Path) -> None:
    make(tmp_path / "shop", Kind.CLOUD_SITE)
    change(".env", "^COMPOSE_FILE=.*$", "COMPOSE_FILE=compose.yaml:compose.gpu.yaml")(tmp_path / "shop")

    assert run("check", str(tmp_path / "shop")).exit_code == 0


@needs_compose
def test_an_endpoint_in_the_hosts_network_listens_where_the_environment_says(tmp_path: Path) -> None:
    make(tmp_path / "shop", Kind.EDGE_SITE, host_network=True)
    good = run("check", str(tmp_path / "shop"))
    change(".env", "^ENDPOINT_PORT=.*$", "ENDPOINT_PORT=9080")(tmp_path / "shop")
    moved = run("check", str(tmp_path / "shop"))
    change(".env", "^ENDPOINT_PORT=.*$", "ENDPOINT_PORT=8080")(tmp_path / "shop")
    change("compose.host.yaml", "edge:[$].*[.]2", "edge:172.31.213.9")(tmp_path / "shop")
    lost = run("check", str(tmp_path / "shop"))

    assert good.output.endswith("good.\n")
    assert "listen must be 127.0.0.1:9080" in moved.output
    assert "targets.site-edge: router and edge share no network" in lost.output


def left_as_a_folder(folder: Path) -> None:
    """What a start without its keys file leaves in its place."""
    (folder / "secrets/keys.yaml").unlink()
    (folder / "secrets/keys.yaml").mkdir()


FAULTS: dict[str, tuple[Kind, Callable[[Path], None], str]] = {
    "port of a target": (
        Kind.DEMO,
        change("router.yaml", "edge:8081", "edge:8082"),
        "port 8082, but edge listens on 8081",
    ),
    "threshold": (
        Kind.DEMO,
        change("router.yaml", "threshold: 0.5", "threshold: 1.5"),
        "router.yaml: Expected `float` <= 1.0",
    ),
    "misspelt key": (
        Kind.DEMO,
        change("edge.yaml", "slots:", "solts:"),
        "edge.yaml: Object contains unknown field `solts`",
    ),
    "model's name": (
        Kind.DEMO,
        change("router.yaml", "chat_model: demo-edge", "chat_model: demo"),
        "but edge serves demo-edge",
    ),
    "model's folder": (Kind.DEMO, change("edge.yaml", "/models/demo-edge/1", "/models/demo-edge/9"), "demo-edge/9"),
    "no store": (Kind.DEMO, change(".env", "^MODELS=.*$", "MODELS=/nowhere"), "/nowhere: missing"),
    "template": (
        Kind.DEMO,
        change("router.yaml", "demo-cloud/1/tok", "demo-edge/1/tok"),
        ".template: not of the model",
    ),
    "slots": (Kind.DEMO, change("triton.yaml", "slots: 8", "slots: 2"), ".lane.slots: 8, but triton has 2"),
    "listens for itself": (Kind.DEMO, change("edge.yaml", "0.0.0.0", "127.0.0.1"), "listen must be 0.0.0.0:8081"),
    "two publish a port": (
        Kind.CLOUD_SITE,
        change(".env", "^CLOUD_PORT=.*$", "CLOUD_PORT=8080"),
        "both publish port 8080",
    ),
    "edge published": (
        Kind.DEMO,
        change("compose.yaml", "    networks: \\[site\\]", '    networks: [site]\n    ports: ["8081:8081"]'),
        "only the endpoint should be reachable",
    ),
    "edge in the host's network": (
        Kind.DEMO,
        change("compose.yaml", r"(service: edge\}\n)    networks: \[site\]", r"\1    network_mode: host"),
        "edge is in the host's network; only a router may be",
    ),
    "no network": (Kind.DEMO, change("compose.yaml", r"\[endpoint, site\]", "[endpoint]"), "share no network"),
    "no key": (Kind.DEMO, lambda folder: (folder / "secrets/keys.yaml").unlink(), "keys.yaml: missing"),
    "no file": (
        Kind.DEMO,
        left_as_a_folder,
        "this secret is empty",
    ),
    "open secrets": (Kind.DEMO, lambda folder: (folder / "secrets").chmod(0o755), "chmod 700"),
    "writable root": (Kind.DEMO, change("common.yaml", "read_only: true", "read_only: false"), "is not read_only"),
    "capabilities": (Kind.DEMO, change("common.yaml", r"cap_drop: \[ALL\]", "cap_drop: []"), "keeps capabilities"),
    "privileges": (
        Kind.DEMO,
        change("common.yaml", "no-new-privileges:true", "seccomp=unconfined"),
        "may gain privileges",
    ),
    "cloud in the clear": (Kind.EDGE_SITE, change("router.yaml", r"    tls:\n(      .*\n)+", ""), "in the clear"),
    "grpc in the clear": (
        Kind.CLOUD_SITE,
        change("triton.yaml", r"^tls:\n(  .*\n)+", ""),
        "publishes 8001 in the clear",
    ),
    "no certificate shown": (
        Kind.CLOUD_SITE,
        change("router.yaml", r"    tls:\n(      .*\n)+", ""),
        "asks for certificates",
    ),
    "no questions": (Kind.EDGE_SITE, change("probes.yaml", "questions:", "question:"), "no probe questions"),
    "example address": (Kind.EDGE_SITE, change("router.yaml", CLOUD, "cloud.example:8001"), "is an example"),
    "valkey's password": (
        Kind.EDGE_SITE,
        change("secrets/valkey_password", "^.*$", "another"),
        "does not know the password",
    ),
    "certificate": (
        Kind.EDGE_SITE,
        change("secrets/certificate.pem", "BEGIN", "BEGAN"),
        "certificate.pem: no certificate",
    ),
}


@needs_compose
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    kind, spoil, said = FAULTS[name]
    make(tmp_path / "shop", kind)
    spoil(tmp_path / "shop")

    result = run("check", str(tmp_path / "shop"))

    assert result.exit_code == 1
    assert any(said in line for line in result.output.splitlines()), result.output
    assert "Traceback" not in result.output


@needs_compose
def test_damaged_weights_are_found(tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(STORE, store, ignore=shutil.ignore_patterns(".*"))
    make(tmp_path / "shop", Kind.DEMO)
    change(".env", "^MODELS=.*$", f"MODELS={store}")(tmp_path / "shop")
    with (store / "demo-edge/1/model.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"spoilt")

    assert "demo-edge/1" in run("check", str(tmp_path / "shop")).output


def test_new_writes_a_key_that_its_file_takes_and_secrets_that_nobody_else_can_reach(tmp_path: Path) -> None:
    key = make(tmp_path / "shop", Kind.EDGE_SITE)

    secrets = tmp_path / "shop/secrets"
    assert load_admission(secrets / "keys.yaml").admit(f"Bearer {key}").operator
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "authority/ca_key.pem").stat().st_mode & 0o777 == 0o400
    password = (secrets / "valkey_password").read_text().strip()
    assert len(password) > 30
    assert password not in (secrets / "valkey_users").read_text()
    assert not any(key in file.read_text() for file in (tmp_path / "shop").rglob("*") if file.is_file())


def test_new_refuses_what_it_cannot_make(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    common = ["--address", "127.0.0.1", "--port", "8080", "--models", str(STORE)]

    full = run("new", str(tmp_path / "full"), "--kind", "demo", *common)
    unsigned = run("new", str(tmp_path / "a"), "--kind", "cloud-site", *common)
    aimless = run("new", str(tmp_path / "b"), "--kind", "edge-site", "--authority", str(tmp_path / "c"), *common)

    private = run("new", str(tmp_path / "d"), "--kind", "demo", "--host-network", *common)

    assert "--host-network is for edge-site" in private.output
    assert "is not empty" in full.output
    assert "needs --authority" in unsigned.output
    assert "needs --cloud" in aimless.output
    assert not (tmp_path / "a").exists()
    assert {full.exit_code, unsigned.exit_code, aimless.exit_code} == {1}


def test_new_asks_for_what_no_option_gives(tmp_path: Path) -> None:
    answers = f"demo\n127.0.0.1\n9080\n{STORE}\n"

    result = CliRunner().invoke(main, ["site", "new", str(tmp_path / "shop")], input=answers)

    assert result.exit_code == 0
    assert "ENDPOINT_PORT=9080" in (tmp_path / "shop/.env").read_text()
    assert result.stdout.splitlines()[-1].startswith("hy-")


def test_certificates_expire_and_are_good_for_their_hosts_only(tmp_path: Path) -> None:
    issue(tmp_path / "authority", tmp_path / "short", "shop", ["triton", "10.0.0.7"], days=3)
    issue(tmp_path / "stranger", tmp_path / "strange", "shop", [], days=3)
    own, strange = (tmp_path / name for name in ("short", "strange"))
    files = CertificateFiles(own / "ca.pem", own / "certificate.pem", own / "certificate_key.pem")

    assert find_certificate_faults(files, ["triton", "10.0.0.7"], soon_days=1) == []
    assert "expires on" in find_certificate_faults(files, [], soon_days=14)[0]
    assert "not good for the host other" in find_certificate_faults(files, ["other"], soon_days=1)[0]
    unsigned = replace(files, ca=strange / "ca.pem")
    assert "not signed by" in find_certificate_faults(unsigned, [], soon_days=1)[0]
    foreign = replace(files, key=strange / "certificate_key.pem")
    assert "not the key of" in find_certificate_faults(foreign, [], soon_days=1)[0]


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("127.0.0.1:8080:8080/tcp", Port("127.0.0.1", 8080, 8080)),
        ("9080:8080", Port("0.0.0.0", 9080, 8080)),
        ({"host_ip": "10.0.0.1", "published": "9080", "target": 8080, "mode": "ingress"}, Port("10.0.0.1", 9080, 8080)),
    ],
)
def test_ports_are_read_as_both_composes_print_them(said: str | dict[str, object], meant: Port) -> None:
    assert _port(said) == meant


@pytest.mark.parametrize("kind", Kind)
def test_every_example_value_is_used(kind: Kind) -> None:
    example = (SITES / kind / ".env.example").read_text()
    folders = [SITES / kind, SITES / Kind.DEMO] if kind is Kind.DEV else [SITES / kind]
    composed = "".join(path.read_text() for folder in folders for path in folder.glob("compose*.yaml"))
    composed += (SITES / "common.yaml").read_text()

    for name in re.findall(r"^([A-Z_]+)=", example, re.MULTILINE):
        assert f"${{{name}" in composed or name in {"COMPOSE_FILE", "COMPOSE_PROFILES"}, (
            f"{kind}: {name} changes nothing"
        )


@pytest.mark.parametrize("path", sorted(SITES.rglob("*.yaml")), ids=lambda path: str(path.relative_to(SITES)))
def test_every_yaml_file_says_what_it_is(path: Path) -> None:
    assert path.read_text().startswith("# ")
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_the_parts_files_are_of_their_schemas() -> None:
    from cloud.config import load_config as load_triton
    from edge.config import Config as EdgeConfig
    from router.config import Config as RouterConfig

    for path in SITES.rglob("router.yaml"):
        read_settings(path, RouterConfig, fix="")
    for path in SITES.rglob("edge.yaml"):
        read_settings(path, EdgeConfig, fix="")
    assert load_triton(SITES / "demo/triton.yaml").grpc_port == 8001
