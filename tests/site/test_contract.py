"""One suite over both backends, against the real edge and the real Triton: what `router.backends.Backend` promises."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime as ort
import pytest
from msgspec.structs import replace

from cloud.config import ChatConfig, EmbedConfig, Provider, TritonConfig
from cloud.installation import has_nvidia_device
from cloud.triton import serving
from deploy.demo import ROOT
from edge.engine.artifact import ArtifactKind, write_manifest
from edge.engine.session import CUDA
from edge.engine.template import ChatTemplate
from edge.models.catalog import Precision
from edge.models.llama import export_checkpoint
from edge.models.store import Store
from loadtests.site import STORE, Site
from router.backends import Backend
from router.backends.openai import OpenAIBackend
from router.backends.triton import TritonBackend
from router.config import OpenAITarget, TritonTarget, load_config
from router.errors import BackendError, DeadlineError, OverloadedError, RefusedError
from router.query import (
    Conversation,
    Delta,
    EmbeddingQuery,
    Finish,
    JsonFormat,
    Message,
    Parameters,
    Query,
    RawPrompts,
)

pytestmark = pytest.mark.anyio

GREEDY = Parameters(temperature=0.0, max_tokens=120)
ENDLESS = Parameters(
    temperature=1.9, max_tokens=200, seed=3, json_format=JsonFormat(b'{"type":"string","minLength":150}')
)


HAS_CUDA = CUDA in ort.get_available_providers() and has_nvidia_device()
ON_GPU = pytest.param(
    "triton-cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not HAS_CUDA, reason="needs an NVIDIA GPU and a build of ONNX Runtime with CUDA"),
    ],
)


@pytest.fixture(scope="module")
def cuda_triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Triton's gRPC address, with both models on the CUDA provider."""
    folder = tmp_path_factory.mktemp("cuda")
    export_checkpoint(ROOT / "cloud" / "demo", folder, Precision.FLOAT16)
    write_manifest(folder, kind=ArtifactKind.CHAT, name="demo-cloud", version="float16")
    config = TritonConfig(
        chat=ChatConfig(str(folder), provider=Provider.CUDA),
        embed=EmbedConfig(str(Store(STORE).find("all-minilm-l6-v2")), provider=Provider.CUDA),
        http_port=0,
        grpc_port=0,
        metrics_port=0,
    )
    with serving(config) as server:
        yield server.addresses.grpc


@pytest.fixture(params=["openai", "triton", ON_GPU])
async def backend(request: pytest.FixtureRequest, site: Site) -> AsyncIterator[Backend]:
    config = load_config(site.work / "router.yaml")
    edge, cloud = config.targets["edge-demo"], config.targets["cloud-demo"]
    assert isinstance(edge, OpenAITarget)
    assert isinstance(cloud, TritonTarget)
    made: Backend
    if request.param == "openai":
        made = OpenAIBackend("edge-demo", edge, None)
    else:
        if request.param == "triton-cuda":
            cloud = msgspec.structs.replace(cloud, address=request.getfixturevalue("cuda_triton"))
        made = TritonBackend("cloud-demo", cloud, ChatTemplate.load(cloud.template or Path()))
    async with made:
        yield made
    # gRPC's poller may still hold events of cancelled calls, which must not find this test's loop closed
    await asyncio.sleep(0.1)


def ask(*turns: str, parameters: Parameters = GREEDY, deadline_s: float = 30.0) -> Query:
    """A conversation that alternates from the user's first turn."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], text) for i, text in enumerate(turns))
    return Query(Conversation(messages), parameters, deadline=time.monotonic() + deadline_s, request_id="contract")


async def read(deltas: AsyncIterator[Delta]) -> list[Delta]:
    """The whole stream."""
    return [delta async for delta in deltas]


async def test_it_is_ready(backend: Backend) -> None:
    assert await backend.ready()


async def test_an_easy_question_is_answered(backend: Backend) -> None:
    completion = await backend.complete(ask("What is 3 plus 4?"))

    assert completion.choices[0].text.strip().endswith("7")
    assert completion.choices[0].finish is Finish.STOP
    assert completion.usage.prompt_tokens > 5
    assert completion.usage.completion_tokens > 0


@pytest.mark.parametrize("number", [27, 58])
async def test_a_second_turn_knows_the_first(backend: Backend, number: int) -> None:
    completion = await backend.complete(
        ask(f"My locker number is {number}.", "Okay, I will remember that.", "What is my locker number?")
    )

    assert completion.choices[0].text.strip().endswith(str(number))


async def test_a_stream_is_the_whole_answer_in_pieces(backend: Backend) -> None:
    query = ask("What is 34 plus 58?")

    whole = await backend.complete(query)
    deltas = await read(backend.stream(query))

    assert "".join(delta.text for delta in deltas) == whole.choices[0].text
    assert [delta.finish for delta in deltas if delta.finish] == [whole.choices[0].finish]
    assert deltas[-1].usage == whole.usage


async def test_max_tokens_ends_an_answer(backend: Backend) -> None:
    completion = await backend.complete(ask("Hello there!", parameters=replace(GREEDY, max_tokens=3)))

    assert completion.choices[0].finish is Finish.LENGTH
    assert completion.usage.completion_tokens == 3


async def test_a_stop_string_ends_an_answer_and_is_not_in_it(backend: Backend) -> None:
    plain = (await backend.complete(ask("Hello there!"))).choices[0].text
    stop = plain[4:8]

    completion = await backend.complete(ask("Hello there!", parameters=replace(GREEDY, stop=(stop,))))
    deltas = await read(backend.stream(ask("Hello there!", parameters=replace(GREEDY, stop=(stop,)))))

    assert completion.choices[0].text == plain[: plain.index(stop)]
    assert completion.choices[0].finish is Finish.STOP
    assert "".join(delta.text for delta in deltas) == completion.choices[0].text


async def test_a_seed_repeats_an_answer_and_another_changes_it(backend: Backend) -> None:
    async def sample(seed: int) -> str:
        # no chat template: the models have no firm opinion of what follows
        query = Query(RawPrompts(("Z",)), Parameters(temperature=2.0, seed=seed, max_tokens=60))
        return (await backend.complete(query)).choices[0].text

    first, again, *others = await asyncio.gather(sample(1), sample(1), sample(2), sample(3), sample(4))

    assert first == again
    assert any(other != first for other in others)


async def test_several_answers_come_in_order_with_their_logprobs(backend: Backend) -> None:
    parameters = Parameters(temperature=0.0, n=3, logprobs=True, top_logprobs=3, max_tokens=80)

    completion = await backend.complete(ask("What is 3 plus 4?", parameters=parameters))
    deltas = await read(backend.stream(ask("What is 3 plus 4?", parameters=parameters)))

    assert len(completion.choices) == 3
    for index, choice in enumerate(completion.choices):
        assert "".join(delta.text for delta in deltas if delta.index == index) == choice.text
        assert len(choice.logprobs) == sum(len(delta.logprobs) for delta in deltas if delta.index == index)
        for place in choice.logprobs:
            assert len(place.top) == 3
            # greedy: the chosen token is the likeliest
            assert place.logprob == pytest.approx(place.top[0].logprob, abs=1e-4)
            assert np.exp([top.logprob for top in place.top]).sum() <= 1.0001


async def test_raw_prompts_are_continued_each(backend: Backend) -> None:
    texts = tuple(f"<|im_start|>user\nWhat is {n} plus 1?<|im_end|>\n<|im_start|>assistant\n" for n in (2, 5))

    completion = await backend.complete(Query(RawPrompts(texts), GREEDY))
    deltas = await read(backend.stream(Query(RawPrompts(texts), GREEDY)))

    assert [choice.text.strip()[-1] for choice in completion.choices] == ["3", "6"]
    assert ["".join(d.text for d in deltas if d.index == i).strip()[-1] for i in (0, 1)] == ["3", "6"]


async def test_a_schema_binds_the_answer(backend: Backend) -> None:
    schema = b'{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"],"additionalProperties":false}'

    completion = await backend.complete(ask("Hello!", parameters=replace(GREEDY, json_format=JsonFormat(schema))))

    assert isinstance(json.loads(completion.choices[0].text)["ok"], bool)


async def test_an_expired_deadline_stops_the_work(backend: Backend) -> None:
    started = time.monotonic()

    with pytest.raises(DeadlineError):
        await backend.complete(ask("Hello!", parameters=ENDLESS, deadline_s=0.02))

    assert time.monotonic() - started < 1


async def test_an_expired_deadline_stops_embeddings(backend: Backend) -> None:
    """And those who come next do not wait for them."""
    texts = tuple(f"a text of some length, and number {number}, so that they take a while" for number in range(400))
    started = time.monotonic()

    with pytest.raises(DeadlineError):
        await backend.embed(EmbeddingQuery(texts, deadline=started + 0.05))
    failed_s = time.monotonic() - started
    await backend.embed(EmbeddingQuery(("A cat.",), deadline=time.monotonic() + 3))

    assert failed_s < 1


async def test_what_the_target_cannot_hold_is_the_callers_mistake(backend: Backend) -> None:
    with pytest.raises(RefusedError):
        await backend.complete(ask("What is 1 plus 1? " * 4000))


async def test_closing_a_stream_frees_its_slot(backend: Backend) -> None:
    streams = [backend.stream(ask("Hello!", parameters=ENDLESS)) for _ in range(32)]
    for stream in streams[:8]:
        await anext(stream)

    for stream in streams:
        await stream.aclose()

    # 8 slots were taken; were they not freed, this would wait for hundreds of decode steps
    completion = await asyncio.wait_for(backend.complete(ask("What is 3 plus 4?")), 5)
    assert completion.choices[0].text.strip().endswith("7")


async def test_many_at_once_answer_as_one_by_one(backend: Backend) -> None:
    queries = [ask(f"What is {a} plus {b}?") for a in range(2, 7) for b in range(3, 6)]

    together = await asyncio.gather(*(backend.complete(query) for query in queries))
    alone = [await backend.complete(query) for query in queries[:4]]

    assert [c.choices[0].text for c in together[:4]] == [c.choices[0].text for c in alone]


async def test_embeddings_have_meaning_and_order(backend: Backend) -> None:
    texts = ("The cat sleeps.", "A cat is asleep.", "Stocks fell sharply on Monday.")

    embeddings = await backend.embed(EmbeddingQuery(texts))
    alone = await backend.embed(EmbeddingQuery(texts[2:]))

    vectors = np.array([np.frombuffer(vector, "<f4") for vector in embeddings.vectors])
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > 0.8 > 0.3 > vectors[0] @ vectors[2]
    assert vectors[2] @ np.frombuffer(alone.vectors[0], "<f4") > 0.9999
    assert embeddings.prompt_tokens > 10


async def test_every_failure_is_a_backend_error(backend: Backend) -> None:
    bad = JsonFormat(b'{"type": "no such type"}')

    with pytest.raises((BackendError, OverloadedError)):
        await backend.complete(ask("Hello!", parameters=replace(GREEDY, json_format=bad)))
