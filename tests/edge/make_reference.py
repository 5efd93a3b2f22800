"""
Writes `reference.json`: logits of the tiny checkpoints after a fixed prompt, by Hugging Face transformers.

Needs torch and transformers, which tests do not: `python -m tests.edge.make_reference`, from the repository's root.
"""

import json
import tempfile
from pathlib import Path

import torch
import transformers

from tests.edge.checkpoints import write_checkpoint
from tests.edge.reference_cases import CASES, PROMPT


def main() -> None:
    """One entry a case, 16 digits not needed: four decimals."""
    logits = {}
    for name, (architecture, changes) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = write_checkpoint(Path(folder), architecture, **changes)
            model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
            with torch.no_grad():
                logits[name] = [round(v, 4) for v in model(torch.tensor([PROMPT])).logits[0, -1].tolist()]
    origin = (
        f"transformers {transformers.__version__}, torch {torch.__version__}, float32, tests/edge/make_reference.py"
    )
    content = {"origin": origin, "prompt": PROMPT, "logits": logits}
    (Path(__file__).parent / "reference.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
