"""Trains one model of the pair.

`python -m loadtests.pair.train --tier cloud --minutes 60 --work DIR --out cloud/demo`
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from loadtests.pair.batches import Batch, stream_batches
from loadtests.pair.checkpoint import save_checkpoint
from loadtests.pair.conversation import Tier
from loadtests.pair.model import Decoder, Shape
from loadtests.pair.tokenizer import VOCABULARY, train_tokenizer

SHAPES = {
    Tier.EDGE: Shape(VOCABULARY, width=96, layers=4, heads=3, kv_heads=3, head_width=32, hidden=256),
    Tier.CLOUD: Shape(VOCABULARY, width=192, layers=6, heads=6, kv_heads=3, head_width=32, hidden=512),
}
WARMUP_STEPS = 100
DECAY_SHARE = 0.7
LOG_EVERY, SAVE_EVERY = 50, 250


@dataclass(slots=True)
class Progress:
    """How far a run is; saved with it."""

    step: int = 0
    seconds: float = 0.0


class Optimizer:
    """Muon for the matrices inside the layers, AdamW for the rest; float32 masters of bfloat16 weights.

    Muon (Jordan et al. 2024), its step scaled to AdamW's as by Liu et al. 2025, so that one learning rate fits both.
    """

    def __init__(self, model: Decoder, rate: float) -> None:
        self.rate = rate
        self.live = list(model.parameters())
        self.masters = [parameter.detach().float().clone() for parameter in self.live]
        pairs = list(zip(model.named_parameters(), self.masters, strict=True))
        inner = [master for (name, _), master in pairs if "layers" in name and master.dim() == 2]
        outer = [master for (name, _), master in pairs if not ("layers" in name and master.dim() == 2)]
        self.parts = (
            torch.optim.Muon(inner, lr=rate, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
        )

    def step(self, factor: float) -> None:
        """Applies the clipped gradients at `factor` times the learning rate."""
        for master, live in zip(self.masters, self.live, strict=True):
            master.grad = live.grad.float() if live.grad is not None else None
            live.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.rate * factor
            part.step()
        with torch.no_grad():
            torch._foreach_copy_(self.live, self.masters)

    def state(self) -> dict[str, object]:
        """All that a resumed run needs."""
        return {"masters": self.masters, "parts": [part.state_dict() for part in self.parts]}

    def restore(self, state: dict[str, object]) -> None:
        """Continues from `state()`; keeps this run's learning rate."""
        with torch.no_grad():
            torch._foreach_copy_(self.masters, state["masters"])
            torch._foreach_copy_(self.live, self.masters)
        for part, saved in zip(self.parts, state["parts"], strict=True):  # type: ignore[call-overload]
            part.load_state_dict(saved)


def schedule(step: int, share: float) -> float:
    """Warm-up, a plateau, then a straight descent over the last part of the run."""
    return min(1.0, (step + 1) / WARMUP_STEPS, max(0.0, (1.0 - share) / DECAY_SHARE))


def to_tensors(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The batch for torch."""
    return torch.from_numpy(batch.ids), torch.from_numpy(batch.places), torch.from_numpy(batch.targets)


def run(
    arguments: argparse.Namespace, model: Decoder, optimizer: Optimizer, progress: Progress, tokenizer: Path
) -> None:
    """Trains until the given steps or minutes are used up, saving as it goes."""
    forward = torch.compile(model, dynamic=False)
    losses: list[float] = []
    begun, seen = time.monotonic(), 0
    with stream_batches(tokenizer, arguments.tier, f"{arguments.seed}/{progress.step}", arguments.tokens) as stream:
        while (share := share_done(arguments, progress)) < 1:
            batch = stream.get()
            loss = forward(*to_tensors(batch))
            loss.backward()
            optimizer.step(schedule(progress.step, share))
            losses.append(loss.item())
            seen += batch.ids.size
            progress.step += 1
            if progress.step % LOG_EVERY == 0:
                spent = time.monotonic() - begun
                progress.seconds += spent
                mean = sum(losses) / len(losses)
                print(f"step {progress.step} {share:.3f} loss {mean:.4f} {seen / spent:.0f} tokens/s", flush=True)
                losses, begun, seen = [], time.monotonic(), 0
            if progress.step % SAVE_EVERY == 0:
                save_run(arguments.work, optimizer, progress)


def share_done(arguments: argparse.Namespace, progress: Progress) -> float:
    """How much of the run is behind it, 0 to 1 or more."""
    if arguments.steps:
        return float(progress.step / arguments.steps)
    return float(progress.seconds / (60 * arguments.minutes))


def save_run(work: Path, optimizer: Optimizer, progress: Progress) -> None:
    """Writes the run so that a killed one can go on."""
    torch.save(
        {"optimizer": optimizer.state(), "step": progress.step, "seconds": progress.seconds}, work / "run.pt.new"
    )
    (work / "run.pt.new").replace(work / "run.pt")


def load_run(work: Path, optimizer: Optimizer) -> Progress:
    """Picks up a saved run, or starts a new one."""
    if not (work / "run.pt").exists():
        return Progress()
    saved = torch.load(work / "run.pt", weights_only=True)
    optimizer.restore(saved["optimizer"])
    return Progress(saved["step"], saved["seconds"])


def read_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tier", type=Tier, choices=tuple(Tier), required=True)
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="length of the run, the time of earlier parts counted in"
    )
    parser.add_argument("--steps", type=int, help="length in steps instead: the same weights on the same machine")
    parser.add_argument("--tokens", type=int, default=6144, help="tokens in a batch")
    parser.add_argument("--rate", type=float, default=4e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, required=True, help="folder for the tokenizer and the resumable run")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished checkpoint")
    return parser.parse_args()


def main() -> None:
    """Trains, or goes on training, and writes the checkpoint."""
    arguments = read_arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    arguments.work.mkdir(parents=True, exist_ok=True)
    tokenizer = arguments.work / "tokenizer.json"
    if not tokenizer.exists():
        train_tokenizer().save(str(tokenizer))
    model = Decoder(SHAPES[arguments.tier])
    model.bfloat16()
    optimizer = Optimizer(model, arguments.rate)
    progress = load_run(arguments.work, optimizer)
    run(arguments, model, optimizer, progress, tokenizer)
    save_run(arguments.work, optimizer, progress)
    for parameter, master in zip(model.parameters(), optimizer.masters, strict=True):
        parameter.data = master
    save_checkpoint(model, Tokenizer.from_file(str(tokenizer)), arguments.tier, arguments.out)


if __name__ == "__main__":
    main()
