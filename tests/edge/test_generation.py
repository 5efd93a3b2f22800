"""Sequences that join, leave and wait, on a real decoder."""

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge.engine.answer import FinishReason
from edge.engine.decoder import Decoder
from edge.engine.errors import (
    ContextError,
    CrashedError,
    ExpiredError,
    GrammarError,
    ModelError,
    OverloadedError,
    StoppedError,
)
from edge.engine.events import Delta, Event, Failure, Finish
from edge.engine.generator import Generator
from edge.engine.sampling import Logits, Sampling
from edge.engine.session import Provider, SessionConfig
from edge.engine.tokens import Tokenizer
from tests.edge.checkpoints import CONTEXT
from tests.edge.conftest import SESSION, MakeGenerator
from tests.edge.receiving import Receiver

GREEDY = Sampling(temperature=0, max_tokens=40, logprobs=0)
SMALL = 256
# a second and more, unless it is stopped
LONG = Sampling(temperature=0, json_schema='{"type":"string","pattern":"^a{8000}$"}')


def prompts(count: int, longest: int = 60) -> list[list[int]]:
    """Random token ids, no special ones."""
    random = np.random.default_rng(11)
    return [[int(t) for t in random.integers(0, 256, int(random.integers(1, longest)))] for _ in range(count)]


def ask(generator: Generator, prompt: list[int], sampling: Sampling = GREEDY) -> Receiver:
    """One answer, whole."""
    receiver = Receiver()
    generator.submit(prompt, sampling, receiver)
    receiver.finish()
    return receiver


def test_joining_while_others_decode_changes_nothing(make_generator: MakeGenerator) -> None:
    together, alone = make_generator(slots=5), make_generator(slots=1)
    asked = prompts(25)

    receivers = []
    for prompt in asked:
        receivers.append(Receiver())
        together.submit(prompt, GREEDY, receivers[-1])
        time.sleep(0.002)
    for receiver in receivers:
        receiver.finish()

    assert [receiver.tokens for receiver in receivers] == [ask(alone, prompt).tokens for prompt in asked]
    assert len({tuple(receiver.tokens) for receiver in receivers}) > 20


@pytest.mark.parametrize("size", [1, 7, 16])
def test_a_prompt_in_pieces_is_the_same_prompt(model: Path, size: int) -> None:
    decoder = Decoder(model, SESSION, slots=3)
    prompt = prompts(1, 60)[0] + prompts(2, 60)[1]
    whole = decoder.prefill(0, prompt, 0)

    for start in range(0, len(prompt), size):
        logits = decoder.prefill(2, prompt[start : start + size], start)

    assert logits == pytest.approx(whole, abs=2e-3)


def test_prompts_of_one_length_read_together_are_as_if_read_alone(model: Path) -> None:
    together, alone = Decoder(model, SESSION, slots=3), Decoder(model, SESSION, slots=3)
    asked = [prompt[:9] for prompt in prompts(12, 60) if len(prompt) >= 9][:3]

    read = together.prefill_equal(asked)
    one_by_one = np.stack([alone.prefill(slot, prompt, 0) for slot, prompt in enumerate(asked)])

    np.testing.assert_allclose(read, one_by_one, atol=1e-4)
    tokens = read.argmax(axis=-1).tolist()
    np.testing.assert_allclose(together.step(tokens, [9] * 3), alone.step(tokens, [9] * 3), atol=1e-4)


def test_moving_a_sequence_keeps_it(model: Path) -> None:
    decoder = Decoder(model, SESSION, slots=3)
    first, second = prompts(2)
    decoder.prefill(0, first, 0)
    decoder.prefill(2, second, 0)

    decoder.move(2, 1, len(second))
    moved = decoder.step([65, 66], [len(first), len(second)])[1].copy()

    decoder.prefill(0, second, 0)
    assert moved == pytest.approx(decoder.step([66], [len(second)])[0], abs=2e-3)


def test_a_cancelled_generation_leaves_before_the_next_step(make_generator: MakeGenerator) -> None:
    generator = make_generator(slots=1)
    first, second = Receiver(), Receiver()
    running = generator.submit([65], LONG, first)
    generator.submit([66], Sampling(temperature=0, max_tokens=2), second)
    first.next()

    running.cancel()
    second.finish()

    statistics = generator.statistics()
    assert (statistics.cancelled, statistics.finished) == (1, 1)
    # the cancelled one had 8000 steps to go
    assert statistics.completion_tokens < 4000


def test_a_gap_is_closed_while_a_prompt_is_being_read(make_generator: MakeGenerator) -> None:
    alone = make_generator(slots=1)
    generator = make_generator(slots=4, prefill_tokens=1)
    asked = prompts(4, 30)
    receivers = [Receiver() for _ in asked]
    leaving = generator.submit([65], LONG, Receiver())
    for prompt, receiver in zip(asked[:2], receivers, strict=False):
        generator.submit(prompt, GREEDY, receiver)
    receivers[1].next()

    generator.submit(asked[2] * 2, GREEDY, receivers[2])
    while generator.statistics().active < 4:
        time.sleep(0.0005)
    leaving.cancel()
    for receiver in receivers[:3]:
        receiver.finish()

    expected = [ask(alone, prompt).tokens for prompt in (asked[0], asked[1], asked[2] * 2)]
    assert [receiver.tokens for receiver in receivers[:3]] == expected


def test_the_urgent_go_first_then_by_arrival(make_generator: MakeGenerator) -> None:
    generator = make_generator(slots=1)
    order: list[str] = []
    done = threading.Event()
    running = generator.submit([65], LONG, first := Receiver())
    first.next()

    def receive(name: str, last: bool) -> None:
        order.append(name)
        if last:
            done.set()

    for name, priority in (("batch", 2), ("standard", 1), ("standard too", 1), ("interactive", 0)):
        last = name == "batch"
        generator.submit(
            [66],
            Sampling(temperature=0, max_tokens=1),
            lambda event, name=name, last=last: receive(name, last) if isinstance(event, Finish) else None,  # type: ignore[misc]
            priority=priority,
        )
    running.cancel()

    assert done.wait(10)
    assert order == ["interactive", "standard", "standard too", "batch"]


def test_too_many_are_refused_before_any_work(make_generator: MakeGenerator) -> None:
    generator = make_generator(slots=1, waiting=2)
    held = [generator.submit([65], LONG, first := Receiver())]
    first.next()
    held += [generator.submit([65], LONG, Receiver()) for _ in range(2)]

    with pytest.raises(OverloadedError, match="2 generations wait"):
        generator.submit([65], GREEDY, Receiver())

    held[1].cancel()  # one that waits makes room
    generator.submit([65], GREEDY, Receiver())


def test_a_batch_job_never_overtakes_however_soon_it_is_due(make_generator: MakeGenerator) -> None:
    """It goes when nobody more urgent waits, also of those that came after it."""
    generator = make_generator(slots=1)
    running = generator.submit([65], LONG, first := Receiver())
    first.next()
    order: list[str] = []
    now = time.monotonic()

    def submit(name: str, priority: int, due_s: float | None) -> Receiver:
        receiver = Receiver()

        def deliver(event: Event) -> None:
            if isinstance(event, Finish):
                order.append(name)
                if name == "standard":  # an urgent one that comes while others wait already
                    submit("interactive too", 0, None)
            receiver(event)

        deadline = None if due_s is None else now + due_s
        generator.submit([66], Sampling(temperature=0, max_tokens=1), deliver, priority=priority, deadline=deadline)
        return receiver

    last = submit("batch", 2, 60)
    submit("standard, without deadline", 1, None)
    submit("standard", 1, 90)
    submit("interactive", 0, None)
    running.cancel()
    last.finish()

    assert order == ["interactive", "standard", "interactive too", "standard, without deadline", "batch"]


def test_what_expired_never_starts(make_generator: MakeGenerator) -> None:
    """Deadlines that have passed, that pass at any moment, and none: nothing gets a slot after its own."""
    generator = make_generator(slots=2)
    now = time.monotonic()
    deadlines = [now] * 10 + [now + index * 0.004 for index in range(40)] + [None] * 10
    receivers = [Receiver() for _ in deadlines]

    for index, (prompt, deadline) in enumerate(zip(prompts(60), deadlines, strict=True)):
        sampling = Sampling(temperature=0, max_tokens=30)
        generator.submit(prompt, sampling, receivers[index], priority=index % 3, deadline=deadline)
    events = [receiver.end() for receiver in receivers]

    statistics = generator.statistics()
    expired = [event for event in events if isinstance(event, Failure)]
    assert all(isinstance(event.error, ExpiredError) for event in expired)
    assert not any(receiver.deltas for receiver in receivers[:10])
    assert statistics.started <= 50
    assert (statistics.expired, statistics.finished) == (len(expired), 60 - len(expired))
    assert len(expired) >= 10
    assert statistics.finished >= 10
    assert statistics.started_late == 0


def test_whatever_becomes_of_a_sequence_is_counted_once(make_generator: MakeGenerator) -> None:
    """Deadlines, cancellations from other threads and ends of answers meet at any moment."""
    generator = make_generator(slots=3, waiting=1000)
    random = np.random.default_rng(5)
    crowd = [prompt[:20] for prompt in prompts(300)]

    def live(mine: list[list[int]], lifetimes: list[float], urgency: list[int]) -> None:
        for prompt, lifetime_s, priority in zip(mine, lifetimes, urgency, strict=True):
            sampling = Sampling(temperature=0, max_tokens=12)
            deadline = time.monotonic() + lifetime_s if priority else None
            generation = generator.submit(prompt, sampling, Receiver(), priority=priority, deadline=deadline)
            if lifetime_s < 0.1:
                threading.Timer(lifetime_s, generation.cancel).start()

    threads = [
        threading.Thread(
            target=live,
            args=(crowd[i::3], random.uniform(0, 0.3, 100).tolist(), random.integers(0, 3, 100).tolist()),
        )
        for i in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while (now := generator.statistics()).active or now.waiting:
        time.sleep(0.001)

    assert now.finished + now.cancelled + now.expired == 300
    assert min(now.finished, now.cancelled, now.expired) > 0
    assert now.finished <= now.started < 300
    assert now.started_late == now.failed == 0


def test_a_passed_deadline_leaves_no_further_step(make_generator: MakeGenerator) -> None:
    """Besides the one that runs at that moment."""
    generator = make_generator(slots=1)
    deadline = time.monotonic() + 0.3
    after: list[Event] = []
    done = threading.Event()

    def deliver(event: Event) -> None:
        if time.monotonic() > deadline:
            after.append(event)
        if isinstance(event, Failure):
            done.set()

    generator.submit([65], LONG, deliver, deadline=deadline)

    assert done.wait(10)
    assert len(after) <= 2
    assert isinstance(after[-1], Failure)
    assert generator.statistics().active == 0


def test_who_cancels_at_a_token_gets_no_further_one(make_generator: MakeGenerator) -> None:
    generator = make_generator(slots=1)
    deltas: list[Event] = []

    def deliver(event: Event) -> None:
        deltas.append(event)
        if len(deltas) == 5:
            generation.cancel()

    generation = generator.prepare([65], LONG)
    generator.begin(generation, deliver)
    while generator.statistics().cancelled == 0:
        time.sleep(0.001)

    assert len(deltas) == generator.statistics().completion_tokens == 5


def test_who_left_before_the_work_began_never_starts(make_generator: MakeGenerator) -> None:
    generator = make_generator()
    generation = generator.prepare([65], LONG)

    generation.cancel()
    generator.begin(generation, Receiver())

    statistics = generator.statistics()
    assert (statistics.cancelled, statistics.waiting, statistics.started) == (1, 0, 0)


@pytest.mark.parametrize("running", [True, False])
def test_a_passed_deadline_ends_the_work(make_generator: MakeGenerator, running: bool) -> None:
    generator = make_generator(slots=1)
    if not running:
        generator.submit([65], LONG, first := Receiver())
        first.next()
    late, started = Receiver(), time.monotonic()
    generator.submit([65], LONG, late, deadline=started + 0.3)

    event = late.end()

    assert isinstance(event, Failure)
    assert isinstance(event.error, ExpiredError)
    assert time.monotonic() - started < 1
    assert generator.statistics().expired == 1
    assert bool(late.deltas) == running
    assert generator.statistics().started == 1


def test_what_does_not_fit_is_refused_before_any_work(make_generator: MakeGenerator) -> None:
    generator = make_generator(context=SMALL)

    with pytest.raises(ContextError, match="empty"):
        generator.submit([], GREEDY, Receiver())
    with pytest.raises(ContextError, match=f"has {SMALL} tokens"):
        generator.submit([1] * SMALL, GREEDY, Receiver())
    with pytest.raises(ContextError, match="lower max_tokens to 6 or less") as caught:
        generator.submit([1] * (SMALL - 6), Sampling(max_tokens=7), Receiver())

    assert caught.value.param == "max_tokens"
    assert generator.statistics().started == 0


def test_the_context_can_be_filled_to_its_end(make_generator: MakeGenerator) -> None:
    receiver = Receiver()
    make_generator(context=SMALL).submit([1] * (SMALL - 6), Sampling(temperature=0), receiver)

    finish = receiver.finish()

    assert (finish.reason, finish.prompt_tokens, finish.completion_tokens) == (FinishReason.LENGTH, SMALL - 6, 6)


def test_the_models_own_end_is_counted_but_not_shown(make_generator: MakeGenerator) -> None:
    receiver = Receiver()
    make_generator().submit([65], Sampling(temperature=0, json_schema='{"const": 7}', logprobs=0), receiver)

    finish = receiver.finish()

    assert receiver.text == "7"
    assert finish.reason is FinishReason.STOP
    assert finish.completion_tokens >= len(receiver.tokens) == 1


def test_a_stop_string_across_tokens_ends_the_answer(make_generator: MakeGenerator) -> None:
    generator = make_generator()
    plain = ask(generator, prompts(1)[0])
    raw = [token.chosen.raw for delta in plain.deltas for token in delta.tokens]
    stop = b"".join(raw[5:8]).decode(errors="replace")

    stopped = ask(generator, prompts(1)[0], Sampling(temperature=0, max_tokens=40, logprobs=0, stop=(stop,)))

    assert len(stop) > 1
    assert stopped.text == plain.text[: plain.text.index(stop)]
    assert stopped.tokens == plain.tokens[: len(stopped.tokens)]


def test_a_seed_repeats_an_answer_among_any_neighbours(make_generator: MakeGenerator) -> None:
    generator = make_generator(slots=4)
    sampling = Sampling(temperature=1.3, top_p=0.95, seed=42, max_tokens=40)
    alone = ask(generator, [72, 105], sampling).text

    neighbours = [generator.submit(prompt, LONG, Receiver()) for prompt in prompts(3)]
    among = ask(generator, [72, 105], sampling).text
    for neighbour in neighbours:
        neighbour.cancel()

    assert among == alone
    assert ask(generator, [72, 105], Sampling(temperature=1.3, seed=43, max_tokens=40)).text != alone


@pytest.mark.parametrize("seed", range(8))
def test_a_schema_binds_the_answer(make_generator: MakeGenerator, seed: int) -> None:
    schema = {
        "type": "object",
        "properties": {
            "ok": {"type": "boolean"},
            "kind": {"enum": ["a", "b"]},
            "list": {"type": "array", "items": {"type": "integer", "maximum": 99, "minimum": 0}, "maxItems": 3},
        },
        "required": ["ok", "kind", "list"],
        "additionalProperties": False,
    }
    sampling = Sampling(temperature=1.5, seed=seed, json_schema=json.dumps(schema), max_tokens=200)

    answer = json.loads(ask(make_generator(), [65, 66], sampling).text)

    assert answer.keys() == schema["properties"].keys()  # type: ignore[attr-defined]
    assert isinstance(answer["ok"], bool)
    assert answer["kind"] in {"a", "b"}
    assert all(isinstance(one, int) and 0 <= one < 100 for one in answer["list"])
    assert len(answer["list"]) <= 3


@pytest.mark.parametrize("schema", ['{"type": "nonsense"}', "[1", '{"$ref": "#/nowhere"}', '"text"'])
def test_a_broken_schema_is_refused_before_any_work(make_generator: MakeGenerator, schema: str) -> None:
    generator = make_generator()

    with pytest.raises(GrammarError):
        generator.submit([65], Sampling(json_schema=schema), Receiver())

    assert generator.statistics().waiting == 0


class FragileDecoder(Decoder):
    """A decoder whose model fails when told to."""

    broken = False

    def step(self, tokens: Sequence[int], lengths: Sequence[int]) -> Logits:
        return super().step([10**6] * len(tokens) if self.broken else tokens, lengths)  # no such token: a failure


def test_a_crash_of_the_model_fails_what_runs_and_nothing_else(model: Path, tokenizer: Tokenizer) -> None:
    decoder = FragileDecoder(model, SESSION, slots=2)
    with Generator(decoder, tokenizer) as generator:
        receivers = [Receiver(), Receiver()]
        for receiver in receivers:
            generator.submit([65], LONG, receiver)
            receiver.next()

        decoder.broken = True
        events = [receiver.end() for receiver in receivers]
        decoder.broken = False

        assert all(isinstance(event, Failure) and isinstance(event.error, CrashedError) for event in events)
        assert generator.statistics().failed == 2
        assert generator.alive
        assert ask(generator, [65]).tokens


def test_stopping_fails_what_runs_and_what_waits(model: Path, tokenizer: Tokenizer) -> None:
    receivers = [Receiver(), Receiver()]
    with Generator(Decoder(model, SESSION, slots=1), tokenizer) as generator:
        for receiver in receivers:
            generator.submit([65], LONG, receiver)
        receivers[0].next()

    for receiver in receivers:
        event = receiver.end()
        assert isinstance(event, Failure)
        assert isinstance(event.error, StoppedError)
    with pytest.raises(StoppedError):
        generator.submit([65], GREEDY, Receiver())


def test_a_receiver_that_fails_loses_its_slot(make_generator: MakeGenerator) -> None:
    generator = make_generator(slots=1)

    def refuse(event: object) -> None:
        raise RuntimeError("the receiver is gone")

    generator.submit([65], LONG, refuse)

    assert ask(generator, [65]).tokens
    assert generator.statistics().cancelled == 1


def test_a_long_prompt_does_not_hold_a_stream_up(make_generator: MakeGenerator) -> None:
    generator = make_generator(slots=2, prefill_tokens=4)
    stream, long = Receiver(), Receiver()
    generator.submit([65], LONG, stream)
    stream.next()

    generator.submit([66] * 200, Sampling(temperature=0, max_tokens=1), long)
    long.finish()

    assert stream.unread >= 40  # 200 prompt tokens in fours: 50 steps of the stream between them


def test_a_missing_provider_is_named(model: Path) -> None:
    with pytest.raises(ModelError, match=r"no 'NoSuchProvider'.*CPUExecutionProvider"):
        Decoder(model, SessionConfig(providers=(Provider("NoSuchProvider"),)), slots=1)


def test_a_context_beyond_the_models_is_refused(model: Path) -> None:
    with pytest.raises(ModelError, match=f"is more than the model's {CONTEXT}"):
        Decoder(model, SESSION, slots=1, context=CONTEXT + 1)


def test_deltas_carry_logprobs_only_when_asked(make_generator: MakeGenerator) -> None:
    generator = make_generator()

    plain = ask(generator, [65], Sampling(temperature=0, max_tokens=10))
    scored = ask(generator, [65], Sampling(temperature=0, max_tokens=10, logprobs=3))

    assert not plain.tokens
    assert scored.text == plain.text
    assert all(len(token.top) == 3 for delta in scored.deltas for token in delta.tokens)
    assert all(isinstance(delta, Delta) and (delta.text or delta.tokens) for delta in plain.deltas + scored.deltas)
