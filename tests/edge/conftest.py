"""Tiny models, made once."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.engine.artifact import ArtifactKind, write_manifest
from edge.engine.decoder import Decoder
from edge.engine.generator import Generator
from edge.engine.session import SessionConfig
from edge.engine.tokens import Tokenizer
from edge.models.catalog import Precision
from edge.models.llama import export_checkpoint
from tests.edge.checkpoints import QWEN2, write_checkpoint

MakeGenerator = Callable[..., Generator]
SESSION = SessionConfig(threads=1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def qwen2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("qwen2"), QWEN2, tied=False)


@pytest.fixture(scope="session")
def model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 artifact of the Llama-shaped checkpoint."""
    folder = tmp_path_factory.mktemp("artifact")
    export_checkpoint(checkpoint, folder, Precision.INT8)
    write_manifest(folder, kind=ArtifactKind.CHAT, name="tiny", version="1")
    return folder


@pytest.fixture(scope="session")
def tokenizer(model: Path) -> Tokenizer:
    return Tokenizer(model / "tokenizer.json")


@pytest.fixture
def make_generator(model: Path, tokenizer: Tokenizer) -> Iterator[MakeGenerator]:
    """Makes running generators, which stop when the test ends."""
    made: list[Generator] = []

    def make(*, slots: int = 4, waiting: int = 64, prefill_tokens: int = 16, context: int | None = None) -> Generator:
        decoder = Decoder(model, SESSION, slots=slots, context=context)
        generator = Generator(decoder, tokenizer, waiting=waiting, prefill_tokens=prefill_tokens)
        made.append(generator.__enter__())
        return generator

    yield make
    for generator in made:
        generator.__exit__(None, None, None)
