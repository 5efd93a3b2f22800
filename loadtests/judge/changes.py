"""What was fitted, as the small file that ships: half-precision changes of MiniLM's weights, by BERT's names."""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from loadtests.judge.network import LINEARS, NORMS


def write_changes(fitted: Path, changes: Path, *, threshold: float, veto: float) -> None:
    """Both thresholds are log-odds."""
    names = {_rename(name): value.to(torch.float16) for name, value in load_file(fitted).items()}
    save_file(dict(sorted(names.items())), changes, {"threshold": f"{threshold:.4f}", "veto": f"{veto:.4f}"})


def _rename(name: str) -> str:
    if found := re.fullmatch(r"layers\.(\d+)\.linears\.(\d+)\.(\w+)", name):
        return f"encoder.layer.{found[1]}.{list(LINEARS)[int(found[2])]}.{found[3]}"
    if found := re.fullmatch(r"layers\.(\d+)\.norms\.(\d+)\.(\w+)", name):
        return f"encoder.layer.{found[1]}.{NORMS[int(found[2])]}.{found[3]}"
    return re.sub(r"^norm\.", "embeddings.LayerNorm.", name)
