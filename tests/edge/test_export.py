"""The exported graph computes what the checkpoint means, for us and for onnxruntime-genai."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime_genai as og
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from edge.engine.decoder import Decoder
from edge.models.catalog import Precision
from edge.models.errors import ExportError
from edge.models.llama import export_checkpoint
from edge.models.quantization import quantize_blocks, quantize_rows
from tests.edge.checkpoints import write_checkpoint
from tests.edge.conftest import SESSION
from tests.edge.reference_cases import CASES, PROMPT

REFERENCE = json.loads((Path(__file__).parent / "reference.json").read_text())


def export(checkpoint: Path, folder: Path, precision: Precision = Precision.FLOAT32) -> Path:
    folder.mkdir()
    export_checkpoint(checkpoint, folder, precision)
    return folder


def greedy(folder: Path, prompt: list[int], count: int) -> list[int]:
    """Our own decoder's tokens, one sequence, whole prompt at once."""
    decoder = Decoder(folder, SESSION, slots=1)
    tokens = [int(decoder.prefill(0, prompt, 0).argmax())]
    while len(tokens) < count and tokens[-1] not in decoder.end_tokens:
        tokens.append(int(decoder.step(tokens[-1:], [len(prompt) + len(tokens) - 1])[0].argmax()))
    return tokens


def greedy_genai(folder: Path, prompt: list[int], count: int) -> list[int]:
    """onnxruntime-genai's own tokens."""
    model = og.Model(str(folder))
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=len(prompt) + count, do_sample=False)
    generator = og.Generator(model, parameters)
    generator.append_tokens(prompt)
    tokens = []
    while not generator.is_done():
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    return tokens


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    architecture, changes = CASES[case]
    checkpoint = write_checkpoint(tmp_path / "checkpoint", architecture, **changes)

    decoder = Decoder(export(checkpoint, tmp_path / "model"), SESSION, slots=1)

    assert decoder.prefill(0, PROMPT, 0) == pytest.approx(np.array(REFERENCE["logits"][case]), abs=1e-3)


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.INT8, Precision.INT4])
@pytest.mark.parametrize("kind", ["checkpoint", "qwen2_checkpoint"])
def test_onnxruntime_genai_runs_it_to_the_same_tokens(
    kind: str, precision: Precision, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = export(request.getfixturevalue(kind), tmp_path / "model", precision)

    for seed in range(4):
        prompt = [int(token) for token in np.random.default_rng(seed).integers(0, 250, 5 + 9 * seed)]
        assert greedy(folder, prompt, 40) == greedy_genai(folder, prompt, 40)


def test_the_same_bytes_every_time(checkpoint: Path, tmp_path: Path) -> None:
    first, second = (export(checkpoint, tmp_path / name, Precision.INT4) for name in ("a", "b"))

    assert {path.name for path in first.iterdir()} == {
        "model.onnx",
        "genai_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_shards_and_bfloat16_are_read(checkpoint: Path, tmp_path: Path) -> None:
    sharded = write_checkpoint(tmp_path / "sharded")
    rounded = write_checkpoint(tmp_path / "rounded")
    weights = {name: w.astype(ml_dtypes.bfloat16) for name, w in load_file(checkpoint / "model.safetensors").items()}
    names = sorted(weights)
    (sharded / "model.safetensors").unlink()
    index: dict[str, Any] = {"weight_map": {}}
    for shard, part in enumerate((names[:7], names[7:])):
        file = f"model-0000{shard + 1}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, sharded / file)
        index["weight_map"] |= dict.fromkeys(part, file)
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({name: w.astype(np.float32) for name, w in weights.items()}, rounded / "model.safetensors")

    models = [export(folder, folder / "model") for folder in (sharded, rounded)]

    assert (models[0] / "model.onnx").read_bytes() == (models[1] / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architecture GPT2LMHeadModel cannot be exported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' cannot be exported"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "'yarn' is not supported"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"eos_token_id": None}, "names no eos_token_id"),
    ],
)
def test_what_cannot_be_exported_is_named(changes: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | changes))

    with pytest.raises(ExportError, match=complaint):
        export(checkpoint, tmp_path / "model")


@pytest.mark.parametrize(
    ("extra", "missing", "complaint"),
    [
        ("model.layers.0.self_attn.q_norm.weight", None, "q_norm.weight has no place"),
        (None, "model.norm.weight", "no tensor model.norm.weight"),
    ],
)
def test_tensors_must_fit(extra: str | None, missing: str | None, complaint: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    weights = load_file(checkpoint / "model.safetensors")
    if extra:
        weights[extra] = np.ones(16, np.float32)
    if missing:
        del weights[missing]
    save_file(weights, checkpoint / "model.safetensors")

    with pytest.raises(ExportError, match=complaint):
        export(checkpoint, tmp_path / "model")


@given(st.integers(0, 2**32), st.sampled_from([4, 8]), st.integers(1, 100))
def test_blocks_are_within_half_a_step(seed: int, bits: int, inputs: int) -> None:
    weight = np.random.default_rng(seed).normal(0, 1, (3, inputs)).astype(np.float32)

    stored, scales = quantize_blocks(weight, bits)

    values = np.stack([stored & 15, stored >> 4], -1).reshape(3, -1, 32) if bits == 4 else stored
    back = ((values.astype(np.float32) - 2 ** (bits - 1)) * scales[..., None]).reshape(3, -1)[:, :inputs]
    steps = np.repeat(np.abs(scales), 32, axis=1)[:, :inputs]
    # the largest of the sign opposite to the extreme one may be clipped by up to one step
    assert (np.abs(back - weight) <= steps * 1.001).all()
    assert np.abs(back - weight).mean() <= steps.mean() * 0.5


def test_rows_and_blocks_of_zeros_stay_zero() -> None:
    zeros = np.zeros((2, 40), np.float32)

    blocks, scales = quantize_blocks(zeros, 8)
    rows, row_scales = quantize_rows(zeros)

    assert (blocks == 128).all()
    assert not scales.any()
    assert not rows.any()
    assert (row_scales == 1).all()
