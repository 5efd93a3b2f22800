"""How far a quantized decoder is from its float original, on prompts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct

from edge.engine.decoder import Decoder
from edge.engine.sampling import Logits, log_softmax
from edge.engine.session import SessionConfig

PROMPTS = (
    "What is 12 plus 7?",
    "Sort these numbers: 42, 7, 19.",
    "Reverse the word lantern.",
    "Which is larger, 108 or 91?",
    "How many days are in three weeks?",
    "Write the word garden in capital letters.",
    "What is 36 times 4?",
    "Tell me about the sea.",
)


class Drift(Struct, frozen=True):
    """Over all places of the float model's own greedy answers, both models reading the same tokens.

    `agreement` is the share of places where both would say the same token; `divergence_nats` the mean Kullback-Leibler
    divergence of the quantized model's distribution from the float one's; `largest_difference` that of any logit.
    """

    places: int
    agreement: float
    divergence_nats: float
    largest_difference: float


def measure_drift(original: Path, quantized: Path, prompts: Sequence[Sequence[int]], *, tokens: int = 48) -> Drift:
    """Compare two exported models on prompts of token ids, over up to `tokens` tokens an answer.

    Raises:
        ModelError: one of them cannot run here.
    """
    first, second = (Decoder(folder, SessionConfig(), slots=1) for folder in (original, quantized))
    pairs = [pair for prompt in prompts for pair in _answer(first, second, list(prompt), tokens)]
    agreed = sum(int(a.argmax() == b.argmax()) for a, b in pairs)
    return Drift(
        len(pairs),
        agreed / len(pairs),
        float(np.mean([_divergence(a, b) for a, b in pairs])),
        max(float(np.abs(a - b).max()) for a, b in pairs),
    )


def _answer(first: Decoder, second: Decoder, prompt: list[int], tokens: int) -> list[tuple[Logits, Logits]]:
    """Logits of both models along the first one's greedy answer."""
    pairs = [(first.prefill(0, prompt, 0), second.prefill(0, prompt, 0))]
    last = min(len(prompt) + tokens, first.context) - 1
    for length in range(len(prompt), last):
        token = int(pairs[-1][0].argmax())
        if token in first.end_tokens:
            break
        pairs.append((first.step([token], [length])[0].copy(), second.step([token], [length])[0].copy()))
    return pairs


def _divergence(original: Logits, quantized: Logits) -> float:
    p, q = log_softmax(original), log_softmax(quantized)
    return float((np.exp(p) * (p - q)).sum())
