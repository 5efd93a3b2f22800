"""The judge as a torch network: MiniLM that reads two questions at once, with small changes of its weights."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from loadtests.judge.batches import Batch

LAYERS, WIDTH, HEADS, EPSILON = 6, 384, 12, 1e-12
RANK: Final = 32
HIDDEN: Final = 128
MASKED: Final = -10000.0
LINEARS: Final = {
    "attention.self.query": (384, 384),
    "attention.self.key": (384, 384),
    "attention.self.value": (384, 384),
    "attention.output.dense": (384, 384),
    "intermediate.dense": (1536, 384),
    "output.dense": (384, 1536),
}
NORMS: Final = ("attention.output.LayerNorm", "output.LayerNorm")


class Changed(nn.Module):  # type: ignore[misc]
    """A matrix that stays as it is, plus a product of two thin ones (Hu et al. 2021, arXiv:2106.09685)."""

    base: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("base", weight, persistent=False)
        self.bias = nn.Parameter(bias.clone())
        self.up = nn.Parameter(torch.zeros(weight.shape[0], RANK))
        self.down = nn.Parameter(torch.randn(RANK, weight.shape[1]) / weight.shape[1] ** 0.5)

    def forward(self, hidden: Tensor) -> Tensor:
        weight = torch.addmm(self.base, self.up, self.down)
        return functional.linear(hidden, weight, self.bias)


class Layer(nn.Module):  # type: ignore[misc]
    """One of BERT's."""

    def __init__(self, weights: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.linears = nn.ModuleList(
            Changed(weights[f"{prefix}.{name}.weight"], weights[f"{prefix}.{name}.bias"]) for name in LINEARS
        )
        self.norms = nn.ModuleList(make_norm(weights, f"{prefix}.{name}") for name in NORMS)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        batch, length, _ = hidden.shape
        query, key, value, output, widen, narrow = self.linears
        split = (linear(hidden).view(batch, length, HEADS, -1).transpose(1, 2) for linear in (query, key, value))
        asks, keys, values = split  # not torch's fused attention: on a CPU its gradient takes as long as all the rest
        scores = torch.matmul(asks, keys.transpose(2, 3)) * (WIDTH // HEADS) ** -0.5 + bias
        context = torch.matmul(torch.softmax(scores, dim=-1).to(values.dtype), values)
        attended = output(context.transpose(1, 2).reshape(batch, length, WIDTH))
        hidden = self.norms[0](attended + hidden)
        narrowed = narrow(functional.gelu(widen(hidden), approximate="tanh"))
        return self.norms[1](narrowed + hidden)


class Network(nn.Module):  # type: ignore[misc]
    """Log-odds that two questions ask the same, and that each token makes a difference."""

    words: Tensor
    places: Tensor

    def __init__(self, weights: Mapping[str, Tensor], types: int) -> None:
        super().__init__()
        self.register_buffer("words", weights["embeddings.word_embeddings.weight"], persistent=False)
        self.register_buffer("places", weights["embeddings.position_embeddings.weight"], persistent=False)
        first = weights["embeddings.token_type_embeddings.weight"][0]
        self.types = nn.Parameter(first + 0.02 * torch.randn(types, WIDTH))
        self.norm = make_norm(weights, "embeddings.LayerNorm")
        self.layers = nn.ModuleList(Layer(weights, f"encoder.layer.{at}") for at in range(LAYERS))
        self.hidden = nn.Linear(3 * WIDTH, HIDDEN)
        self.verdict = nn.Linear(HIDDEN, 1)
        self.difference = nn.Linear(WIDTH, 1)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-odds that a pair asks the same [batch], and that a token makes a difference [batch, seq]."""
        hidden = self.norm(self.words[batch.ids] + self.places[batch.positions] + self.types[batch.types])
        bias = torch.zeros(batch.ids.shape).masked_fill(~batch.mask, MASKED)[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, bias)
        stored = batch.types % 2
        one, other = (mean(hidden, side * batch.mask) for side in (1 - stored, stored))
        pooled = torch.cat([hidden[:, 0], (one - other).abs(), one * other], dim=1)
        verdict = self.verdict(functional.gelu(self.hidden(pooled)))[:, 0].float()
        differs = self.difference(hidden)[..., 0].float()
        return verdict - differs.masked_fill(~batch.worded, MASKED).logsumexp(dim=1), differs


def mean(hidden: Tensor, side: Tensor) -> Tensor:
    """Over some of the tokens: [batch, width]."""
    share = side / side.sum(dim=1, keepdim=True)
    return torch.einsum("bsw,bs->bw", hidden, share.to(hidden.dtype))


def make_norm(weights: Mapping[str, Tensor], prefix: str) -> nn.LayerNorm:
    """With the base's weights, to be changed."""
    norm = nn.LayerNorm(WIDTH, eps=EPSILON)
    norm.weight = nn.Parameter(weights[f"{prefix}.weight"].clone())
    norm.bias = nn.Parameter(weights[f"{prefix}.bias"].clone())
    return norm
