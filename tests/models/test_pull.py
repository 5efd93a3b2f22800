"""`hybrid models` as people run it: real processes, real pip, and a hub on loopback that huggingface_hub talks to."""

import http.server
import json
import os
import queue
import shutil
import signal
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE
from safetensors.numpy import load_file, save_file

from edge.engine.artifact import Artifact, ArtifactKind, FileDigest, digest_file
from edge.engine.decoder import Decoder
from edge.engine.events import Delta, Event, Finish
from edge.engine.generator import Generator
from edge.engine.sampling import Sampling
from edge.engine.session import SessionConfig
from edge.engine.template import ChatTemplate
from edge.engine.tokens import Tokenizer
from tests.models.checkpoints import Architecture, make_checkpoint
from tests.models.conftest import Hybrid
from tests.models.hub import COMMIT, Hub, serving

REPO = "acme/tiny"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    make_checkpoint(folder, Architecture.LLAMA)
    return folder


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[Hub]:
    with serving(Hub({REPO: checkpoint})) as hub:
        yield hub


@pytest.fixture
def online(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url}


def write_catalog(catalog: Path, checkpoint: Path, /, **source: str) -> None:
    """A catalogue with one model, `tiny`, of the checkpoint's files as they are now."""
    files = {name: msgspec.to_builtins(digest_file(checkpoint / name)) for name in FILES}
    entry = {
        "name": "tiny",
        "version": "1",
        "kind": "chat",
        "license": "MIT",
        "source": source,
        "prepare": {"exporter": "llama", "precision": "float32"},
        "files": files,
    }
    catalog.write_text(yaml.safe_dump({"models": [entry]}))


@pytest.fixture
def catalog(tmp_path: Path, checkpoint: Path) -> Path:
    path = tmp_path / "models.yaml"
    write_catalog(path, checkpoint, **{"from": "hub", "repo": REPO, "revision": COMMIT})
    return path


def answer(folder: Path, prompt: str) -> tuple[str, Finish]:
    """What the model in `folder` says, 8 tokens at most."""
    artifact = Artifact.open(folder, ArtifactKind.CHAT)
    tokenizer = Tokenizer(artifact.file("tokenizer.json"))
    template = ChatTemplate.load(artifact.file("tokenizer_config.json"))
    tokens = tokenizer.encode(template.render([{"role": "user", "content": prompt}]), add_special=False)
    events: queue.Queue[Event] = queue.Queue()
    with Generator(Decoder(folder, SessionConfig(threads=1), slots=1), tokenizer) as generator:
        generator.submit(tokens, Sampling(max_tokens=8, temperature=0), events.put)
        text = ""
        while isinstance(event := events.get(timeout=30), Delta):
            text += event.text
    assert isinstance(event, Finish)
    assert event.prompt_tokens == len(tokens)
    return text, event


@pytest.mark.parametrize(("architecture", "precision"), [(Architecture.LLAMA, "int4"), (Architecture.QWEN2, "float32")])
def test_a_checkpoint_of_the_hub_is_added_pulled_and_answers(
    tmp_path: Path, hybrid: Hybrid, architecture: Architecture, precision: str
) -> None:
    make_checkpoint(tmp_path / "theirs", architecture)
    with serving(Hub({REPO: tmp_path / "theirs"})) as hub:
        online = {"HF_ENDPOINT": hub.url}
        added = hybrid("add", REPO, "--catalog", "mine.yaml", "--precision", precision, extra=online)
        assert added.returncode == 0, added.stderr
        asked = len(hub.requests)
        pulled = hybrid("pull", "tiny", "--catalog", "mine.yaml", extra=online)

    assert pulled.returncode == 0, pulled.stderr
    assert len(hub.requests) == asked, "what `add` fetched is not fetched again"
    entry = yaml.safe_load((tmp_path / "mine.yaml").read_text())["models"][0]
    assert (entry["source"]["revision"], entry["license"]) == (COMMIT, "apache-2.0")
    folder = tmp_path / ".models" / "tiny" / COMMIT[:12]
    text, finish = answer(folder, "hello world")
    assert text
    assert finish.completion_tokens == 8
    assert answer(folder, "hello world") == (text, finish)
    assert answer(folder, "the answer is")[0] != text, "the prompt plays a part"


def test_a_pull_verifies_and_a_second_one_asks_nothing(
    tmp_path: Path, hybrid: Hybrid, hub: Hub, online: dict[str, str], catalog: Path
) -> None:
    first = hybrid("pull", "--all", "--catalog", str(catalog), extra=online)
    asked = len(hub.requests)
    second = hybrid("pull", "--all", "--catalog", str(catalog), extra=online)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "tiny/1  prepared" in first.stdout
    assert "tiny/1  ready" in second.stdout
    assert 0 < asked == len(hub.requests)
    assert not list((tmp_path / ".models" / ".work").iterdir())


def test_offline_works_with_all_in_the_store_and_names_what_is_missing_otherwise(
    hybrid: Hybrid, hub: Hub, online: dict[str, str], catalog: Path
) -> None:
    before = hybrid("pull", "tiny", "--catalog", str(catalog), "--offline", extra=online)
    assert not hub.requests
    hybrid("pull", "tiny", "--catalog", str(catalog), extra=online)
    after = hybrid("pull", "tiny", "--catalog", str(catalog), extra={"HF_HUB_OFFLINE": "1"})

    assert before.returncode == 1
    assert "tiny/1: offline, and config.json is missing; copy <store>/tiny/1/" in before.stderr
    assert (after.returncode, after.stdout.split()[:2]) == (0, ["tiny/1", "ready"])


def test_a_flipped_byte_at_the_source_is_refused_by_name(
    tmp_path: Path, hybrid: Hybrid, checkpoint: Path, online: dict[str, str], catalog: Path
) -> None:
    flip_last_byte(checkpoint / "model.safetensors")

    pulled = hybrid("pull", "tiny", "--catalog", str(catalog), extra=online)

    assert pulled.returncode == 1
    assert "model.safetensors: refused, not the file of the catalogue (its sha256 differs)" in pulled.stderr
    assert "Traceback" not in pulled.stderr
    assert not (tmp_path / ".models" / "tiny").exists()


def test_a_flipped_byte_in_the_store_is_found_and_mended(
    tmp_path: Path, hybrid: Hybrid, online: dict[str, str], catalog: Path
) -> None:
    hybrid("pull", "tiny", "--catalog", str(catalog), extra=online)
    flip_last_byte(tmp_path / ".models/tiny/1/model.onnx")

    found = hybrid("verify", "--json")
    mended = hybrid("pull", "tiny", "--catalog", str(catalog), extra=online)
    fine = hybrid("verify", "tiny")

    assert (found.returncode, mended.returncode, fine.returncode) == (1, 0, 0)
    (entry,) = json.loads(found.stdout)
    assert entry["state"] == "damaged"
    assert "model.onnx" in entry["problem"]


def test_a_pull_killed_while_it_downloads_resumes_where_it_was(
    tmp_path: Path, start: Start, hybrid: Hybrid, checkpoint: Path, hub: Hub, online: dict[str, str]
) -> None:
    weights = checkpoint / "model.safetensors"
    save_file(load_file(weights), weights, {"padding": "-" * 12_000_000})
    catalog = tmp_path / "models.yaml"
    write_catalog(catalog, checkpoint, **{"from": "hub", "repo": REPO, "revision": COMMIT})
    hub.stall, hub.stall_after = "model.safetensors", DOWNLOAD_CHUNK_SIZE + 1000
    process = start("pull", "tiny", "--catalog", str(catalog), extra=online)
    assert hub.stalled.wait(30)
    part = tmp_path / ".models/.work/tiny@1/source/model.safetensors.part"
    wait_for_size(part, DOWNLOAD_CHUNK_SIZE)
    process.kill()
    process.wait()
    assert not (tmp_path / ".models" / "tiny").exists()
    kept = part.stat().st_size
    hub.go.set()

    again = hybrid("pull", "tiny", "--catalog", str(catalog), extra=online)

    assert again.returncode == 0, again.stderr
    assert kept == DOWNLOAD_CHUNK_SIZE
    assert hub.ranges() == [f"bytes={kept}-"]
    assert hybrid("verify").returncode == 0


def test_ctrl_c_ends_in_one_line_and_leaves_only_what_can_be_resumed(
    tmp_path: Path, start: Start, hub: Hub, online: dict[str, str], catalog: Path
) -> None:
    hub.stall, hub.stall_after = "model.safetensors", 100_000
    process = start("pull", "tiny", "--catalog", str(catalog), extra=online)
    assert hub.stalled.wait(30)

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 1
    assert err.endswith("hybrid models: stopped; run the same command again to resume.\n")
    assert "Traceback" not in err
    assert not (tmp_path / ".models" / "tiny").exists()
    kept = {path.name for path in (tmp_path / ".models/.work/tiny@1/source").iterdir()}
    assert kept == {"config.json", "model.safetensors.part"}


def test_a_pull_killed_while_it_exports_shows_nothing_and_the_next_one_succeeds(
    tmp_path: Path, start: Start, hybrid: Hybrid, checkpoint: Path
) -> None:
    write_catalog(tmp_path / "models.yaml", checkpoint, **{"from": "folder", "path": "checkpoint"})
    artifact = tmp_path / ".models/.work/tiny@1/artifact"
    killer = (
        "import os, signal; from edge.models import llama; from edge.models.cli import main; write = llama._save\n"
        "def die(*arguments):\n    write(*arguments)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "llama._save = die; main()"
    )
    process = start("pull", "tiny", "--catalog", "models.yaml", program=killer)
    assert process.wait(30) == -signal.SIGKILL
    assert (artifact / "model.onnx").exists()
    assert hybrid("list", "--catalog", "models.yaml").stdout.split()[-1] == "absent"

    again = hybrid("pull", "tiny", "--catalog", "models.yaml")

    assert again.returncode == 0, again.stderr
    assert hybrid("verify", "tiny").returncode == 0


def test_two_pulls_at_once_prepare_it_once(
    tmp_path: Path, start: Start, hub: Hub, online: dict[str, str], catalog: Path
) -> None:
    hub.stall, hub.stall_after = "model.safetensors", 1000
    first = start("pull", "tiny", "--catalog", str(catalog), extra=online)
    assert hub.stalled.wait(30)
    second = start("pull", "tiny", "--catalog", str(catalog), extra=online)
    assert second.stderr
    assert second.stderr.readline() == "tiny/1: waiting for another process\n"
    hub.go.set()

    outputs = [process.communicate(timeout=30)[0].split()[1] for process in (first, second)]

    assert outputs == ["prepared", "ready"]


def test_a_wheel_is_got_by_pip_and_its_code_never_runs(tmp_path: Path, hybrid: Hybrid, checkpoint: Path) -> None:
    wheel = make_wheel(tmp_path / "wheels", checkpoint)
    source = {"from": "wheel", "package": "tiny-weights", "version": "1.0", "prefix": "tiny_weights/model/"}
    write_catalog(tmp_path / "models.yaml", checkpoint, **source, sha256=digest_file(wheel).sha256)
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent)}

    pulled = hybrid("pull", "tiny", "--catalog", "models.yaml", extra=index)

    assert pulled.returncode == 0, pulled.stderr
    assert not (tmp_path / "ran").exists()
    flip_last_byte(wheel)
    shutil.rmtree(tmp_path / ".models")
    refused = hybrid("pull", "tiny", "--catalog", "models.yaml", extra=index)
    assert refused.returncode == 1
    assert "the wheel tiny-weights==1.0: refused, its sha256 is not the one of the catalogue" in refused.stderr


def test_a_wheel_that_pip_cannot_get_is_explained(tmp_path: Path, hybrid: Hybrid, checkpoint: Path) -> None:
    source = {"from": "wheel", "package": "tiny-weights", "version": "1.0", "sha256": "0" * 64}
    write_catalog(tmp_path / "models.yaml", checkpoint, **source)

    pulled = hybrid("pull", "tiny", "--catalog", "models.yaml", extra={"PIP_NO_INDEX": "1"})

    assert pulled.returncode == 1
    assert "tiny/1: pip could not get tiny-weights==1.0" in pulled.stderr
    assert "Traceback" not in pulled.stderr


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_an_archive_on_disk_or_on_the_web_is_unpacked(
    tmp_path: Path, hybrid: Hybrid, checkpoint: Path, suffix: str
) -> None:
    archive = make_archive(tmp_path / "served" / f"tiny{suffix}", checkpoint)
    sha256 = digest_file(archive).sha256

    with files_at(archive.parent) as url:
        for location in (f"served/{archive.name}", f"{url}/{archive.name}"):
            source = {"from": "archive", "location": location, "sha256": sha256, "prefix": "tiny/"}
            write_catalog(tmp_path / "models.yaml", checkpoint, **source)
            pulled = hybrid("pull", "tiny", "--catalog", "models.yaml", "--store", f"store-{len(location)}")
            assert pulled.returncode == 0, pulled.stderr

    assert archive.exists()


def test_a_member_larger_than_the_catalogue_says_is_not_unpacked(
    tmp_path: Path, hybrid: Hybrid, checkpoint: Path
) -> None:
    write_catalog(tmp_path / "models.yaml", checkpoint, **{"from": "folder", "path": "checkpoint"})
    with (checkpoint / "config.json").open("ab") as file:
        file.write(b" " * 10_000_000)

    pulled = hybrid("pull", "tiny", "--catalog", "models.yaml")

    entry = yaml.safe_load((tmp_path / "models.yaml").read_text())["models"][0]
    size = entry["files"]["config.json"]["bytes"]
    assert pulled.returncode == 1
    assert f"config.json: refused, not the file of the catalogue ({size + 1} bytes came, {size} are" in pulled.stderr


def test_a_changed_catalogue_entry_is_prepared_anew(tmp_path: Path, hybrid: Hybrid, checkpoint: Path) -> None:
    catalog = tmp_path / "models.yaml"
    write_catalog(catalog, checkpoint, **{"from": "folder", "path": "checkpoint"})
    hybrid("pull", "tiny", "--catalog", "models.yaml")
    catalog.write_text(catalog.read_text().replace("float32", "int8"))

    listed = hybrid("list", "--catalog", "models.yaml", "--json")
    pulled = hybrid("pull", "tiny", "--catalog", "models.yaml")

    assert json.loads(listed.stdout)[0]["state"] == "outdated"
    assert "tiny/1  prepared" in pulled.stdout


def test_pinning_records_a_folder_as_it_is(tmp_path: Path, hybrid: Hybrid, checkpoint: Path) -> None:
    catalog = tmp_path / "models.yaml"
    write_catalog(catalog, checkpoint, **{"from": "folder", "path": "checkpoint"})
    (checkpoint / "config.json").write_text((checkpoint / "config.json").read_text() + "\n")
    (checkpoint / "notes.md").write_text("Not a part of the model.")
    refused = hybrid("pull", "tiny", "--catalog", "models.yaml")

    pinned = hybrid("pin", "tiny", "--catalog", "models.yaml")

    assert refused.returncode == 1
    assert pinned.returncode == 0, pinned.stderr
    files = msgspec.convert(yaml.safe_load(catalog.read_text())["models"][0]["files"], dict[str, FileDigest])
    assert files == {name: digest_file(checkpoint / name) for name in FILES}
    assert hybrid("pull", "tiny", "--catalog", "models.yaml").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["pull"], 2, "--all"),
        (["pull", "unheard-of"], 1, "unheard-of: not in the catalogue (known: all-minilm-l6-v2, all-minilm-l6-v2-fast"),
        (["pull", "--all", "--catalog", "absent.yaml"], 1, "absent.yaml: no such catalogue"),
        (["verify"], 1, "no models here"),
        (["verify", "tiny"], 1, "hybrid models pull tiny"),
        (["pin", "all-minilm-l6-v2"], 1, "only a folder can be pinned"),
        (["add", "a/b"], 2, "Give --catalog"),
        (["add", "a/b", "--precision", "int8-dynamic"], 2, "--precision"),
        (["list", "--bogus"], 2, "--bogus"),
    ],
)
def test_problems_are_one_line_and_wrong_calls_are_status_2(
    hybrid: Hybrid, arguments: list[str], status: int, message: str
) -> None:
    result = hybrid(*arguments)

    assert result.returncode == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def wait_for_size(path: Path, size: int) -> None:
    """Until a running process has written so much."""
    patience = threading.Event()
    for _ in range(600):
        if path.exists() and path.stat().st_size >= size:
            return
        patience.wait(0.05)
    raise AssertionError(f"{path} did not grow to {size} bytes")


def make_wheel(folder: Path, checkpoint: Path) -> Path:
    """A wheel whose package would leave a file named `ran` if it were imported."""
    folder.mkdir()
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    about = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_weights/__init__.py", f"open({os.fspath(folder.parent / 'ran')!r}, 'w')")
        for name in FILES:
            wheel.write(checkpoint / name, f"tiny_weights/model/{name}")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    return path


def make_archive(path: Path, checkpoint: Path) -> Path:
    path.parent.mkdir()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as packed:
            for name in FILES:
                packed.write(checkpoint / name, f"tiny/{name}")
    else:
        with tarfile.open(path, "w:gz") as tape:
            for name in FILES:
                tape.add(checkpoint / name, f"tiny/{name}")
    return path


@contextmanager
def files_at(folder: Path) -> Iterator[str]:
    """The standard library's file server on loopback; it knows no ranges."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=os.fspath(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
