"""Our model repository against Triton's stock vLLM backend, and against our own wire module."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2

from cloud import repository
from cloud.wire import (
    DEFAULT_PRIORITY,
    EMBEDDING_WIDTH,
    PRIORITY_LEVELS,
    ChatInput,
    ChatOutput,
    EmbedInput,
    EmbedOutput,
)
from router.backends.triton_tensors import say_chat
from router.query import Parameters


class Tensor(msgspec.Struct, frozen=True):
    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False


class Contract(msgspec.Struct, frozen=True):
    decoupled: bool
    max_batch_size: int
    input: tuple[Tensor, ...]
    output: tuple[Tensor, ...]


VLLM_REPOSITORY = repository.SOURCE.with_name("model_repository_vllm")


def read_config(folder: Path) -> Any:
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def tensors(declared: Any) -> tuple[Tensor, ...]:
    types = model_config_pb2.DataType
    return tuple(
        Tensor(each.name, types.Name(each.data_type), tuple(each.dims), getattr(each, "optional", False))
        for each in declared
    )


@pytest.fixture(scope="module")
def stock() -> Contract:
    return msgspec.json.decode(Path(__file__).with_name("vllm_backend_contract.json").read_bytes(), type=Contract)


def test_chat_declares_what_the_stock_vllm_backend_declares(stock: Contract) -> None:
    ours = read_config(repository.SOURCE / "chat")

    assert tensors(ours.input) == stock.input
    assert tensors(ours.output) == stock.output
    assert ours.model_transaction_policy.decoupled == stock.decoupled
    assert ours.max_batch_size == stock.max_batch_size


def test_stock_variant_leaves_the_tensors_to_the_backend(stock: Contract) -> None:
    """The backend adds each tensor that config.pbtxt does not name, so naming one could only make them differ."""
    variant = read_config(VLLM_REPOSITORY / "chat")

    assert variant.backend == "vllm"
    assert not variant.input
    assert not variant.output
    assert variant.model_transaction_policy.decoupled == stock.decoupled
    assert variant.max_batch_size == stock.max_batch_size
    engine = msgspec.json.decode((VLLM_REPOSITORY / "chat" / "1" / "model.json").read_bytes())
    assert engine["model"]


def test_wire_names_every_tensor_of_chat(stock: Contract) -> None:
    assert [tensor.name for tensor in stock.input] == list(ChatInput)
    assert [tensor.name for tensor in stock.output] == list(ChatOutput)


def test_the_stock_backend_does_not_read_the_parameters_that_are_ours() -> None:
    """It takes a request's parameters for sampling parameters, unless the tensor of that name is there."""
    inputs = say_chat("Hi", Parameters(), temperature=0.0, stream=True)

    assert ChatInput.SAMPLING_PARAMETERS in {each.name() for each in inputs}


def test_wire_agrees_with_the_embed_model() -> None:
    embed = read_config(repository.SOURCE / "embed")

    assert tensors(embed.input) == (
        Tensor(EmbedInput.TEXT, "TYPE_STRING", (1,), optional=True),
        Tensor(EmbedInput.TOKEN_IDS, "TYPE_INT64", (-1,), optional=True),
    )
    assert tensors(embed.output) == (
        Tensor(EmbedOutput.EMBEDDING, "TYPE_FP32", (EMBEDDING_WIDTH,)),
        Tensor(EmbedOutput.NUM_INPUT_TOKENS, "TYPE_UINT32", (1,)),
    )
    assert embed.dynamic_batching.priority_levels == PRIORITY_LEVELS
    assert embed.dynamic_batching.default_priority_level == DEFAULT_PRIORITY
