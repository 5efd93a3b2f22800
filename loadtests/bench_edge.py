"""
`make bench-edge`: our decode loop beside onnxruntime-genai's `Generator` and `Engine`, same process, same weights,
same threads, interleaved rounds.

* together: all streams start at once. `Generator` gets them as one fixed batch.
* arriving: one stream every 150 ms (every 2 ms for the demo's model: its answers take milliseconds, not a second).
  `Generator` answers them one by one: it cannot take a stream into a running batch.

Figures are ratios between medians of rounds taken in turn, so that the machine's speed cancels out; above 1 ours is
better. `tokens/s` counts generated tokens from the first arrival to the last token; `first token` is
the mean wait of a stream from its arrival to its first token. All runners turn tokens into text. Answers have the
demo's usual length for the demo's model. Bars: together, tokens/s at 0.95 x `Generator`. Arriving, the first token at
1.3 x both, and with 8 streams of the large model, which fill the machine, tokens/s too.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import click
import numpy as np
import onnx
import onnxruntime_genai as og
from safetensors.numpy import save_file
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models

from edge.engine.decoder import Decoder
from edge.engine.events import Delta, Event, Finish
from edge.engine.generator import Generator
from edge.engine.sampling import Sampling
from edge.engine.session import SessionConfig
from edge.engine.tokens import Tokenizer, Utf8Stream
from edge.models.catalog import Precision
from edge.models.llama import export_checkpoint
from loadtests.bench import Row, report

PROMPT_TOKENS: Final = 48
STREAMS: Final = (1, 4, 8)
MOST: Final = max(STREAMS)

ENGINE: Final = "engine"
TOGETHER_BAR: Final = 0.95
ARRIVING_BAR: Final = 1.3
DEMO: Final = Path(__file__).parent.parent / "edge" / "demo"

# HuggingFaceTB/SmolLM-135M, 134.5M parameters
SHAPE: Final = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 1024,
}


@dataclass(frozen=True, slots=True)
class Contest:
    """One model, and how it is loaded."""

    label: str
    precision: Precision
    vocabulary: int
    together_tokens: int
    arriving_tokens: int
    """An answer's length."""
    every_s: float
    repeats: int
    """Loads a round; those of a small model are over in milliseconds."""
    fills: bool
    """Whether the arrivals fill the machine, so that tokens/s with arrivals says something."""
    make: Callable[[Path], None]
    """Writes the checkpoint into a folder."""

    def prepare(self, folder: Path, threads: int) -> None:
        """Export the checkpoint; onnxruntime-genai gets the same session options and batch size as ours."""
        checkpoint = folder / "checkpoint"
        checkpoint.mkdir(parents=True)
        self.make(checkpoint)
        export_checkpoint(checkpoint, folder, self.precision)
        shutil.rmtree(checkpoint)
        path = folder / "genai_config.json"
        config = json.loads(path.read_text())
        options = config["model"]["decoder"]["session_options"]
        options |= {"intra_op_num_threads": threads, "inter_op_num_threads": 1, "session.intra_op.allow_spinning": "0"}
        config["model"]["eos_token_id"] = config["model"]["vocab_size"] - 1  # never chosen: answers have full length
        config["engine"] = {"static_batching": {"max_batch_size": MOST}}
        path.write_text(json.dumps(config))
        shutil.copytree(folder, folder / ENGINE)
        _keep_all_logits(folder / ENGINE / "model.onnx")


@dataclass(frozen=True, slots=True)
class Load:
    """`streams` prompts, one every `every_s`, each answered with `tokens` tokens."""

    prompts: tuple[tuple[int, ...], ...]
    every_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a runner made of a load."""

    tokens: int
    elapsed_s: float
    first_token_s: float
    """Mean over the streams."""

    @property
    def rate(self) -> float:
        """Generated tokens a second."""
        return self.tokens / self.elapsed_s


class Runner(Protocol):
    """A way to decode."""

    def __call__(self, load: Load) -> Outcome: ...


class OurRunner:
    """`edge.engine`."""

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    def __call__(self, load: Load) -> Outcome:
        first = [0.0] * len(load.prompts)
        counts: list[int] = []
        done = threading.Semaphore(0)
        start = time.perf_counter()

        def submit(index: int, prompt: Sequence[int]) -> None:
            def deliver(event: Event) -> None:
                if isinstance(event, Delta):
                    first[index] = first[index] or time.perf_counter() - start - index * load.every_s
                    return
                if not isinstance(event, Finish):
                    raise TypeError(f"the generation failed: {event}")
                counts.append(event.completion_tokens)
                done.release()

            self._generator.submit(prompt, Sampling(temperature=0, max_tokens=load.tokens), deliver)

        for index, prompt in enumerate(load.prompts):
            _sleep_until(start + index * load.every_s)
            submit(index, prompt)
        for _ in load.prompts:
            done.acquire()
        return Outcome(sum(counts), time.perf_counter() - start, statistics.mean(first))


class GenaiGenerator:
    """onnxruntime-genai's `Generator`: a fixed batch if all start together, else one after the other."""

    def __init__(self, model: og.Model, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer

    def __call__(self, load: Load) -> Outcome:
        start = time.perf_counter()
        if load.every_s == 0:
            tokens, first = self._generate(load.prompts, load.tokens)
            return Outcome(tokens, time.perf_counter() - start, first - start)
        waits, total = [], 0
        for index, prompt in enumerate(load.prompts):
            _sleep_until(start + index * load.every_s)
            tokens, first = self._generate([prompt], load.tokens)
            total += tokens
            waits.append(first - start - index * load.every_s)
        return Outcome(total, time.perf_counter() - start, statistics.mean(waits))

    def _generate(self, prompts: Sequence[Sequence[int]], count: int) -> tuple[int, float]:
        """How many tokens were generated, and when the first ones came."""
        parameters = og.GeneratorParams(self._model)
        parameters.set_search_options(batch_size=len(prompts), max_length=PROMPT_TOKENS + count, do_sample=False)
        generator = og.Generator(self._model, parameters)
        generator.append_tokens(np.array(prompts, np.int32))
        streams = [Utf8Stream() for _ in prompts]
        tokens, first = 0, 0.0
        while not generator.is_done():
            generator.generate_next_token()
            for stream, token in zip(streams, generator.get_next_tokens(), strict=True):
                stream.push(self._tokenizer.token_bytes(int(token)))
            tokens += len(prompts)
            first = first or time.perf_counter()
        return tokens, first


class GenaiEngine:
    """onnxruntime-genai's `Engine`."""

    def __init__(self, model: og.Model, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._engine = og.Engine(model)
        self._events = self._engine.create_event_buffer(256)

    def __call__(self, load: Load) -> Outcome:
        start = time.perf_counter()
        requests: list[og.Request] = []
        streams = [Utf8Stream() for _ in load.prompts]
        first: dict[int, float] = {}
        tokens = 0
        while len(requests) < len(load.prompts) or self._engine.has_pending_requests():
            while len(requests) < len(load.prompts) and time.perf_counter() >= start + len(requests) * load.every_s:
                requests.append(self._begin(load.prompts[len(requests)], load.tokens))
            if not self._engine.has_pending_requests():
                _sleep_until(start + len(requests) * load.every_s)
                continue
            for event in self._engine.run(self._events):
                if og.EngineEventFlags.TOKEN.value & int(event.flags):
                    tokens += 1
                    index = next(i for i, request in enumerate(requests) if request is event.request)
                    streams[index].push(self._tokenizer.token_bytes(int(event.token)))
                    first.setdefault(index, time.perf_counter() - start - index * load.every_s)
        elapsed = time.perf_counter() - start
        for request in requests:
            request.close()
        return Outcome(tokens, elapsed, statistics.mean(first.values()))

    def _begin(self, prompt: Sequence[int], count: int) -> og.Request:
        request = self._engine.create_request()
        options = og.TurnOptions(request)
        options.set_do_sample(False)
        options.set_max_generated_tokens(count)
        request.begin_turn(np.array(prompt, np.int32), options)
        return request


def write_random_checkpoint(folder: Path) -> None:
    """134.5M random parameters, and a tokenizer whose every token is a word."""
    random = np.random.default_rng(1)
    width, size = SHAPE["hidden_size"], SHAPE["head_dim"]
    rows = {"q": SHAPE["num_attention_heads"] * size, "k": SHAPE["num_key_value_heads"] * size}
    rows["v"] = rows["k"]

    def normal(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
        return (random.standard_normal(shape, np.float32) * 0.05).astype(np.float16)

    weights = {"model.embed_tokens.weight": normal(SHAPE["vocab_size"], width), "model.norm.weight": 1 + normal(width)}
    for layer in range(SHAPE["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for part, outputs in rows.items():
            weights[f"{prefix}.self_attn.{part}_proj.weight"] = normal(outputs, width)
        weights[f"{prefix}.self_attn.o_proj.weight"] = normal(width, rows["q"])
        for part in ("gate", "up"):
            weights[f"{prefix}.mlp.{part}_proj.weight"] = normal(SHAPE["intermediate_size"], width)
        weights[f"{prefix}.mlp.down_proj.weight"] = normal(width, SHAPE["intermediate_size"])
        for part in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}.{part}.weight"] = 1 + normal(width)
    save_file(weights, folder / "model.safetensors")
    fixed = {"architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(SHAPE | fixed | {"eos_token_id": 0}))
    tokenizer = HuggingFaceTokenizer(models.BPE(vocab={f"w{i}": i for i in range(SHAPE["vocab_size"])}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


def _keep_all_logits(path: Path) -> None:
    """`Engine` fails on a model that gives the last token's logits only: let the head see every token."""
    model = onnx.load(path)
    head = next(node for node in model.graph.node if "logits" in node.output)
    last = next(node for node in model.graph.node if head.input[0] in node.output)
    head.input[0] = last.input[0]
    model.graph.node.remove(last)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "seq"
    path.write_bytes(model.SerializeToString())


def copy_demo(folder: Path) -> None:
    """The bundled edge model."""
    shutil.copytree(DEMO, folder, dirs_exist_ok=True)


CONTESTS: Final = (
    Contest("135M int4", Precision.INT4, SHAPE["vocab_size"], 48, 96, 0.15, 1, True, write_random_checkpoint),
    Contest("demo int8", Precision.INT8, 768, 24, 24, 0.002, 32, False, copy_demo),
)


@click.command(context_settings={"show_default": True})
@click.option("--rounds", default=4, help="Measurements of each load; their median counts.")
@click.option("--only", help="Measure only the model whose label begins so.")
@click.option("--threads", default=max((os.cpu_count() or 2) // 2, 1), help="Threads of every runner.")
def main(rounds: int, only: str | None, threads: int) -> None:
    """Measure our decode loop beside onnxruntime-genai."""
    og.disable_telemetry_events()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        for contest in (one for one in CONTESTS if one.label.startswith(only or "")):
            click.echo(f"{contest.label}: preparing", err=True)
            folder = Path(scratch) / contest.label
            contest.prepare(folder, threads)
            rows += _compare(contest, folder, rounds, threads)
    sys.exit(report("edge", rows))


def _compare(contest: Contest, folder: Path, rounds: int, threads: int) -> list[Row]:
    decoder = Decoder(folder, SessionConfig(threads=threads), slots=MOST)
    tokenizer = Tokenizer(folder / "tokenizer.json")
    rows: list[Row] = []
    with Generator(decoder, tokenizer) as generator:
        runners: dict[str, Runner] = {
            "ours": OurRunner(generator),
            "Generator": GenaiGenerator(og.Model(str(folder)), tokenizer),
            "Engine": GenaiEngine(og.Model(str(folder / ENGINE)), tokenizer),
        }
        for streams in STREAMS:
            for every_s in (0.0, contest.every_s) if streams > 1 else (0.0,):
                tokens = contest.arriving_tokens if every_s else contest.together_tokens
                load = Load(_prompts(streams, contest.vocabulary), every_s, tokens)
                figures = _measure(runners, load, rounds * contest.repeats)
                click.echo(_describe(contest, load, figures), err=True)
                rows += _judge(contest, load, figures)
    return rows


def _measure(runners: dict[str, Runner], load: Load, rounds: int) -> dict[str, list[Outcome]]:
    """Rounds of all runners in turn, so that a slow moment of the machine meets each; the first one warms up."""
    figures: dict[str, list[Outcome]] = {name: [] for name in runners}
    for turn in range(rounds + 1):
        for name, run in runners.items():
            outcome = run(load)
            if outcome.tokens != len(load.prompts) * load.tokens:
                raise click.ClickException(f"{name} generated {outcome.tokens} tokens, which cannot be compared")
            if turn:
                figures[name].append(outcome)
    return figures


def _judge(contest: Contest, load: Load, figures: dict[str, list[Outcome]]) -> list[Row]:
    rows = []
    for other in ("Generator", "Engine"):
        rate = _rate(figures["ours"]) / _rate(figures[other])
        wait = _wait_s(figures[other]) / _wait_s(figures["ours"])
        name = f"{contest.label}, {len(load.prompts)} {_pace(load)}: {{}} beside {other}"
        if load.every_s:
            bar = ARRIVING_BAR if contest.fills and len(load.prompts) == MOST else None
            rows += [_row(name.format("tokens/s"), rate, bar), _row(name.format("first token"), wait, ARRIVING_BAR)]
        else:
            bar = TOGETHER_BAR if other == "Generator" else None
            rows += [_row(name.format("tokens/s"), rate, bar), _row(name.format("first token"), wait, None)]
    return rows


def _row(name: str, value: float, bar: float | None) -> Row:
    if bar is None:
        return Row(name, f"{value:.2f}", "-", holds=True)
    return Row(name, f"{value:.2f}", f">= {bar:g}", value >= bar)


def _rate(rounds: list[Outcome]) -> float:
    return statistics.median(outcome.rate for outcome in rounds)


def _wait_s(rounds: list[Outcome]) -> float:
    return statistics.median(outcome.first_token_s for outcome in rounds)


def _describe(contest: Contest, load: Load, figures: dict[str, list[Outcome]]) -> str:
    parts = (
        f"{name} {_rate(found):.0f} tok/s, first token after {_wait_s(found) * 1e3:.0f} ms"
        for name, found in figures.items()
    )
    return f"{contest.label}, {len(load.prompts)} {_pace(load)}: {'; '.join(parts)}"


def _pace(load: Load) -> str:
    return f"every {load.every_s * 1e3:.0f} ms" if load.every_s else "together"


def _prompts(streams: int, vocabulary: int) -> tuple[tuple[int, ...], ...]:
    random = np.random.default_rng(5)
    return tuple(tuple(int(t) for t in random.integers(3, vocabulary, PROMPT_TOKENS)) for _ in range(streams))


def _sleep_until(moment: float) -> None:
    while (left := moment - time.perf_counter()) > 0:
        time.sleep(left)


if __name__ == "__main__":
    main()
