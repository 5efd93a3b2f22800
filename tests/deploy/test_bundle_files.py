"""Bundles without an engine: what goes in, what stays out, and that nothing but what was signed is taken."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.site.archive import ending, read_entries, read_small
from deploy.site.bundle import IMAGES, INSTALLER, Contents, Images, collect, write_bundle
from deploy.site.bundle_check import find_bundle_faults
from deploy.site.check import Site
from deploy.site.errors import SiteError
from deploy.site.manifest import Image, Manifest, Model, check_path
from deploy.site.materials import take
from deploy.site.scaffold import Kind
from deploy.site.signing import PRIVATE_KEY, PUBLIC_KEY, make_signing_key, read_signing_key
from tests.deploy.test_site_files import change, make, needs_compose, run

IMAGE = Image(f"sha256:{'ab' * 32}", "hybrid-router:dev")
MATERIALS = b'{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": "numpy", "version": "1"}]}'
MODEL = "models/demo-edge/1/model.onnx"
ENVIRONMENT = "site/.env"
NEEDED = "tar sha256sum openssl head wc sed awk df mktemp cat rm ls dirname tr cut"


class Signed:
    """A small bundle, whole, and a place for spoilt copies of it."""

    def __init__(self, folder: Path) -> None:
        make_signing_key(folder)
        self.key = folder / PUBLIC_KEY
        self.private_key = folder / PRIVATE_KEY
        self.bundle = folder / "shop.bundle"
        self.manifest = self.write(self.bundle, {IMAGE.materials: MATERIALS})
        self.content = self.bundle.read_bytes()
        self.copy = folder / "copy.bundle"

    def write(self, out: Path, materials: dict[str, bytes]) -> Manifest:
        """A bundle with these bills of materials."""
        files: dict[str, Path | bytes] = {MODEL: os.urandom(3000), ENVIRONMENT: b"ENDPOINT_PORT=8080\n"}
        contents = Contents("shop", files, (Model("demo-edge/1", "0" * 64),), ("keys.yaml", "ca.pem"))
        images = Images((IMAGE,), materials, [os.urandom(5000), os.urandom(100)])
        return write_bundle(out, contents, images, read_signing_key(self.private_key), lambda line: None)

    def spoil(self, offset: int, mask: int = 1) -> Path:
        """A copy with one byte changed."""
        content = bytearray(self.content)
        content[offset] ^= mask
        self.copy.write_bytes(content)
        return self.copy

    def offset(self, path: str) -> int:
        """Where the middle of a file is."""
        for entry in read_entries(self.bundle):
            if entry.path == path:
                content = read_small(self.bundle, path)[0]
                return self.content.index(content) + entry.bytes // 2
        raise AssertionError(path)

    def install(self, bundle: Path, *more: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the installer."""
        return subprocess.run(
            ["/bin/sh", str(INSTALLER), str(bundle), "--key", str(self.key), *more],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": path or os.environ["PATH"]},
        )


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    return Signed(tmp_path_factory.mktemp("signed"))


def faults(bundle: Path, key: Path) -> list[str]:
    """What `hybrid site check` says; what it cannot even read is a fault as well."""
    try:
        return find_bundle_faults(bundle, key)
    except SiteError as exc:
        return [str(exc)]


def test_a_bundle_as_it_was_made_is_good(signed: Signed) -> None:
    assert find_bundle_faults(signed.bundle, signed.key) == []
    result = run("check", str(signed.bundle), "--key", str(signed.key))
    assert (result.exit_code, result.output) == (0, f"{signed.bundle}: good.\n")
    verified = signed.install(signed.bundle, "--verify")
    assert verified.returncode == 0, verified.stderr


def test_its_files_come_in_order_with_nothing_of_this_host(signed: Signed) -> None:
    listed = subprocess.run(
        ["tar", "-tvf", str(signed.bundle)], capture_output=True, text=True, check=True, timeout=10
    ).stdout.splitlines()
    paths = [line.split()[-1] for line in listed]

    assert paths[:-2] == sorted(paths[:-2]) == [entry.path for entry in signed.manifest.files]
    assert paths[-2:] == ["manifest", "manifest.sig"]
    assert all(line.startswith("-rw-r--r-- 0/0 ") and " 1970-01-01 00:00 " in line for line in listed)


@pytest.mark.parametrize("path", ["install.sh", IMAGES, MODEL, ENVIRONMENT, IMAGE.materials])
def test_one_changed_byte_in_a_file_is_found_and_named(signed: Signed, path: str) -> None:
    copy = signed.spoil(signed.offset(path))

    assert faults(copy, signed.key) == [f"{copy}: {path}: damaged or missing; copy it again"]
    refused = signed.install(copy, "--verify")
    assert (refused.returncode, "damaged since it was signed" in refused.stderr) == (5, True)


@pytest.mark.parametrize("path", ["manifest", "manifest.sig"])
def test_one_changed_byte_in_what_is_signed_is_found(signed: Signed, path: str) -> None:
    copy = signed.spoil(signed.offset(path))

    assert "not signed by" in faults(copy, signed.key)[0]
    refused = signed.install(copy, "--verify")
    assert (refused.returncode, "not signed by" in refused.stderr) == (5, True)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_one_changed_byte_anywhere_is_found(signed: Signed, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, len(signed.content) - 1))
    copy = signed.spoil(offset, data.draw(st.integers(1, 255)))

    assert faults(copy, signed.key)
    if offset < signed.manifest.archive_bytes:
        assert signed.install(copy, "--verify").returncode == 5


@pytest.mark.parametrize("spoil", [lambda content: content[:-600], lambda content: content + bytes(512)])
def test_a_bundle_of_another_length_is_refused(signed: Signed, spoil: Callable[[bytes], bytes]) -> None:
    signed.copy.write_bytes(spoil(signed.content))

    assert faults(signed.copy, signed.key)
    assert signed.install(signed.copy, "--verify").returncode == 5


def test_what_others_put_behind_it_is_refused(signed: Signed) -> None:
    content, signature = read_small(signed.bundle, "manifest", "manifest.sig")
    end = signed.manifest.archive_bytes
    smuggled = ending(b"image for the engine", b"x")[:1024].replace(b"manifest\0", b"images.t\0", 1)
    signed.copy.write_bytes(signed.content[:end] + smuggled + ending(content, signature))

    assert faults(signed.copy, signed.key)
    assert signed.install(signed.copy, "--verify").returncode == 5


def test_another_key_is_refused(signed: Signed, tmp_path: Path) -> None:
    make_signing_key(tmp_path)
    other = tmp_path / PUBLIC_KEY

    assert "not signed by" in find_bundle_faults(signed.bundle, other)[0]
    assert signed.install(signed.bundle, "--verify", "--key", str(other)).returncode == 5
    result = run("check", str(signed.bundle), "--key", str(other))
    assert (result.exit_code, "1 fault in" in result.output) == (1, True)
    assert run("check", str(signed.bundle)).exit_code == 2


def test_an_image_without_its_bill_of_materials_is_found(signed: Signed, tmp_path: Path) -> None:
    signed.write(tmp_path / "none", {})
    signed.write(tmp_path / "empty", {IMAGE.materials: b"{}"})

    for name in ("none", "empty"):
        (fault,) = find_bundle_faults(tmp_path / name, signed.key)
        assert "bill of materials" in fault
        assert "hybrid-router:dev" in fault


def test_the_installer_says_what_the_box_lacks_and_leaves_it_as_it_is(signed: Signed, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for tool in NEEDED.split():
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
    target, given_secrets, path = tmp_path / "shop", tmp_path / "given", str(tmp_path / "bin")
    given_secrets.mkdir()
    (given_secrets / "ca.pem").write_text("certificate")

    secrets = signed.install(signed.bundle, str(target), path=path)
    engine = signed.install(signed.bundle, str(target), "--secrets", str(given_secrets), path=path)
    (tmp_path / "bin/openssl").unlink()
    bare = signed.install(signed.bundle, str(target), path=path)

    assert "these secrets cannot be made here: ca.pem" in secrets.stderr
    assert "docker is not here" in engine.stderr
    assert "openssl is not here" in bare.stderr
    assert {secrets.returncode, engine.returncode, bare.returncode} == {3}
    assert not target.exists()


def test_the_installer_says_how_it_is_used(signed: Signed, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()

    assert signed.install(signed.bundle).returncode == 2
    assert "give NAME=VALUE" in signed.install(signed.bundle, str(tmp_path), "--set", "a b=c").stderr
    assert "is not empty" in signed.install(signed.bundle, str(tmp_path)).stderr
    assert "cannot be read" in signed.install(tmp_path / "none", str(tmp_path)).stderr


@needs_compose
def test_a_bundle_takes_what_the_site_uses_and_no_secret(tmp_path: Path) -> None:
    key = make(tmp_path / "shop", Kind.DEMO)

    contents = collect(Site.open(tmp_path / "shop"))

    assert [model.name for model in contents.models] == [
        "all-minilm-l6-v2-fast/1",
        "all-minilm-l6-v2/1",
        "demo-cloud/1",
        "demo-edge/1",
    ]
    assert contents.image_names == ("hybrid-cloud:dev", "hybrid-edge:dev", "hybrid-router:dev")
    assert contents.secrets == ("keys.yaml",)
    assert {"site/compose.yaml", "site/common.yaml", "site/pair.score.json", MODEL} <= contents.files.keys()
    assert not [path for path in contents.files if "secrets" in path]
    environment = contents.files[ENVIRONMENT]
    assert isinstance(environment, bytes)
    assert environment.decode().count("MODELS=") == environment.decode().count("MODELS=./models\n") == 1
    assert key not in environment.decode()


@needs_compose
def test_an_edge_sites_bundle_has_the_clouds_template_and_not_its_weights(tmp_path: Path) -> None:
    make(tmp_path / "shop", Kind.EDGE_SITE)

    contents = collect(Site.open(tmp_path / "shop"))

    assert "demo-cloud/1" not in {model.name for model in contents.models}
    assert [path for path in contents.files if "demo-cloud" in path] == ["models/demo-cloud/1/tokenizer_config.json"]
    assert set(contents.secrets) == {
        "ca.pem",
        "certificate.pem",
        "certificate_key.pem",
        "keys.yaml",
        "valkey_password",
        "valkey_users",
    }


@needs_compose
def test_the_profiles_of_the_site_come_along(tmp_path: Path) -> None:
    make(tmp_path / "shop", Kind.DEMO)
    change(".env", "^COMPOSE_PROFILES=.*$", "COMPOSE_PROFILES=observability")(tmp_path / "shop")

    contents = collect(Site.open(tmp_path / "shop"))

    assert any("prometheus" in name for name in contents.image_names)
    assert contents.secrets == ("grafana_password", "keys.yaml")


def test_a_makers_bill_of_materials_is_read_before_it_is_taken(tmp_path: Path) -> None:
    (tmp_path / "good.json").write_bytes(MATERIALS)
    (tmp_path / "other.json").write_text('{"spdxVersion": "SPDX-2.3"}')

    assert take(tmp_path / "good.json") == MATERIALS
    for name in ("other.json", "none.json"):
        with pytest.raises(SiteError, match=name):
            take(tmp_path / name)


SPOILT: dict[str, tuple[Kind, Callable[[Path], object], str]] = {
    "sources from elsewhere": (Kind.DEV, lambda folder: None, "lies outside the site"),
    "a link": (Kind.DEMO, lambda folder: (folder / "link").symlink_to("/etc/hostname"), "is a link"),
    "a key": (
        Kind.DEMO,
        lambda folder: (folder / "key").write_text("-----BEGIN PRIVATE KEY-----\n"),
        "has a private key in it",
    ),
    "a name": (Kind.DEMO, lambda folder: (folder / "a name").touch(), "name it otherwise"),
    "a folder above": (
        Kind.DEMO,
        change("compose.yaml", r"\./edge.yaml:", "../shop/edge.yaml:"),
        "leans on files outside",
    ),
    "an image by digest": (
        Kind.EDGE_SITE,
        change(".env", "^VALKEY_IMAGE=.*$", f"VALKEY_IMAGE=valkey@sha256:{'0' * 64}"),
        "name it by a tag",
    ),
}


@needs_compose
@pytest.mark.parametrize("name", SPOILT)
def test_what_may_not_be_in_a_bundle_is_refused(tmp_path: Path, name: str) -> None:
    kind, spoil, said = SPOILT[name]
    make(tmp_path / "shop", kind)
    spoil(tmp_path / "shop")
    make_signing_key(tmp_path)

    with pytest.raises(SiteError, match=said):
        write_bundle(
            tmp_path / "out",
            collect(Site.open(tmp_path / "shop")),
            Images(),
            read_signing_key(tmp_path / PRIVATE_KEY),
            lambda line: None,
        )

    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("path", ["/etc/passwd", "a/../b", "..", "a//b", "a b", "a\nb", "", "ü", "a" * 101])
def test_a_name_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(SiteError):
        check_path(path)


def test_a_manifest_is_read_only_as_it_was_written(signed: Signed) -> None:
    content = signed.manifest.render()

    assert Manifest.parse(content) == signed.manifest
    for old, new in ((b"hybrid-bundle 1", b"hybrid-bundle 2"), (b"\nsite ", b"\nplace "), (b"file ", b"file  ")):
        with pytest.raises(SiteError):
            Manifest.parse(content.replace(old, new, 1))
    with pytest.raises(SiteError):
        Manifest.parse(b"\xff")


def test_a_signing_key_is_never_replaced(tmp_path: Path) -> None:
    make_signing_key(tmp_path / "keys")
    before = (tmp_path / "keys" / PRIVATE_KEY).read_bytes()

    result = run("key", str(tmp_path / "keys"))

    assert (result.exit_code, "is there already" in result.output) == (1, True)
    assert (tmp_path / "keys" / PRIVATE_KEY).read_bytes() == before
    assert (tmp_path / "keys" / PRIVATE_KEY).stat().st_mode & 0o777 == 0o400
