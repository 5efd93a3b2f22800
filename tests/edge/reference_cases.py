"""The checkpoints and the prompt whose logits `reference.json` holds."""

from typing import Any

from tests.edge.checkpoints import LLAMA, LLAMA3_ROPE, QWEN2

PROMPT = [72, 105, 259, 33, 12, 200, 300, 7, 7, 150]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-tied": (LLAMA, {"tied": True}),
    "llama-rope": (LLAMA, {"tied": False, "rope_scaling": LLAMA3_ROPE, "rope_theta": 500000.0}),
    "qwen2": (QWEN2, {"tied": False}),
}
