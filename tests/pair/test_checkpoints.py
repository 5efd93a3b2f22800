"""The committed checkpoints: layout, tokenizer and chat template."""

import json
import random
from pathlib import Path

import jinja2.sandbox
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from tokenizers import Tokenizer

from loadtests.pair.conversation import Tier, draw_conversation, encode_conversation, encode_prompt, write_reply
from loadtests.pair.questions import Message, Split, generate

ROOT = Path(__file__).parents[2]
FOLDERS = {Tier.EDGE: ROOT / "edge/demo", Tier.CLOUD: ROOT / "cloud/demo"}
LARGEST_PAIR_BYTES = 10_000_000


@pytest.fixture(scope="module", params=tuple(Tier))
def folder(request: pytest.FixtureRequest) -> Path:
    return FOLDERS[request.param]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDERS[Tier.EDGE] / "tokenizer.json"))


def render(folder: Path, messages: tuple[Message, ...]) -> str:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    template = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined).from_string(
        config["chat_template"]
    )
    return template.render(
        messages=[{"role": role, "content": content} for role, content in messages], add_generation_prompt=True
    )


def test_weights_are_those_of_the_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    width, hidden, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    with safe_open(folder / "model.safetensors", "numpy") as weights:
        assert len(weights.keys()) == 2 + 9 * layers
        assert weights.get_slice("model.embed_tokens.weight").get_shape() == [config["vocab_size"], width]
        assert weights.get_slice(f"model.layers.{layers - 1}.mlp.down_proj.weight").get_shape() == [width, hidden]
        assert weights.get_slice("model.layers.0.self_attn.k_proj.weight").get_shape() == [
            config["num_key_value_heads"] * config["head_dim"],
            width,
        ]
    assert width % 32 == hidden % 32 == config["head_dim"] % 16 == 0


def test_both_are_small() -> None:
    assert sum(file.stat().st_size for folder in FOLDERS.values() for file in folder.iterdir()) < LARGEST_PAIR_BYTES


def test_end_of_reply_is_one_token_of_the_vocabulary(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    loaded = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert loaded.encode("<|im_end|>").ids == [config["eos_token_id"]]
    assert loaded.get_vocab_size() <= config["vocab_size"]


@given(st.text())
def test_any_text_survives(text: str) -> None:
    loaded = Tokenizer.from_file(str(FOLDERS[Tier.EDGE] / "tokenizer.json"))
    assert loaded.decode(loaded.encode(text).ids) == text


def test_digits_and_capitals_stand_alone(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("12345").tokens == list("12345")
    assert tokenizer.encode("KXQPR").tokens == list("KXQPR")
    assert tokenizer.encode(" KXQPR").tokens[1:] == list("KXQPR")


def test_template_writes_the_prompt_the_models_were_trained_on(folder: Path) -> None:
    loaded = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for question in generate(1, 200, Split.TEST):
        assert loaded.encode(render(folder, question.messages)).ids == encode_prompt(loaded, question.messages)


def test_training_sees_the_prompt_that_serving_sends(tokenizer: Tokenizer) -> None:
    for question in generate(2, 200, Split.TRAIN):
        prompt = encode_prompt(tokenizer, question.messages)
        ids, learnt = encode_conversation(
            tokenizer, (*question.messages, ("assistant", write_reply(question, Tier.CLOUD)))
        )
        assert ids[: len(prompt)] == prompt
        assert all(learnt[len(prompt) : -1])
        assert not learnt[-1]


def test_prompts_and_workings_are_short(tokenizer: Tokenizer) -> None:
    questions = list(generate(3, 2000, Split.TEST))
    prompts = [len(encode_prompt(tokenizer, question.messages)) for question in questions]
    replies = [len(tokenizer.encode(write_reply(question, Tier.CLOUD)).ids) for question in questions]
    assert sum(prompts) / len(prompts) <= 60
    assert sum(replies) / len(replies) <= 60
    assert max(replies) <= 200


def test_system_prompts_take_part_in_training() -> None:
    rng = random.Random(1)
    roles = [draw_conversation(rng, Tier.EDGE)[0][0] for _ in range(2000)]
    assert 0.15 < roles.count("system") / len(roles) < 0.25
