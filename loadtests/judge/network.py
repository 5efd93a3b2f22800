"""The judge as a torch network: MiniLM that reads two questions at once, with small changes of its weights."""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYERS, WIDTH, HEADS, EPSILON = 6, 384, 12, 1e-12
RANK: Final = 32
HIDDEN: Final = 128
LINEARS: Final = {
    "attention.self.query": (384, 384),
    "attention.self.key": (384, 384),
    "attention.self.value": (384, 384),
    "attention.output.dense": (384, 384),
    "intermediate.dense": (1536, 384),
    "output.dense": (384, 1536),
}
NORMS: Final = ("attention.output.LayerNorm", "output.LayerNorm")


class Changed(nn.Module):
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


class Layer(nn.Module):
    """One of BERT's."""

    def __init__(self, weights: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.linears = nn.ModuleList(
            Changed(weights[f"{prefix}.{name}.weight"], weights[f"{prefix}.{name}.bias"]) for name in LINEARS
        )
        self.norms = nn.ModuleList(make_norm(weights, f"{prefix}.{name}") for name in NORMS)

    def forward(self, hidden: Tensor, bias: Tensor, dropout: float) -> Tensor:
        batch, length, _ = hidden.shape
        query, key, value, output, widen, narrow = self.linears
        split = (linear(hidden).view(batch, length, HEADS, -1).transpose(1, 2) for linear in (query, key, value))
        asks, keys, values = split  # not torch's fused attention: on a CPU its gradient takes as long as all the rest
        scores = torch.matmul(asks, keys.transpose(2, 3)) * (WIDTH // HEADS) ** -0.5 + bias
        context = torch.matmul(torch.softmax(scores, dim=-1).to(values.dtype), values)
        attended = output(context.transpose(1, 2).reshape(batch, length, WIDTH))
        hidden = self.norms[0](functional.dropout(attended, dropout, self.training) + hidden)
        narrowed = narrow(functional.gelu(widen(hidden), approximate="tanh"))
        return self.norms[1](functional.dropout(narrowed, dropout, self.training) + hidden)


class Network(nn.Module):
    """Log-odds that two questions ask the same, and that each token makes a difference."""

    words: Tensor
    places: Tensor

    def __init__(self, weights: Mapping[str, Tensor], types: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.register_buffer("words", weights["embeddings.word_embeddings.weight"], persistent=False)
        self.register_buffer("places", weights["embeddings.position_embeddings.weight"], persistent=False)
        first = weights["embeddings.token_type_embeddings.weight"][0]
        self.types = nn.Parameter(first + 0.02 * torch.randn(types, WIDTH))
        self.norm = make_norm(weights, "embeddings.LayerNorm")
        self.layers = nn.ModuleList(Layer(weights, f"encoder.layer.{at}") for at in range(LAYERS))
        self.hidden = nn.Linear(3 * WIDTH, HIDDEN)
        self.verdict = nn.Linear(HIDDEN, 1)
        self.difference = nn.Linear(WIDTH, 1)

    def forward(self, ids: Tensor, types: Tensor, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.norm(self.words[ids] + self.places[positions] + self.types[types])
        hidden = functional.dropout(hidden, self.dropout, self.training)
        bias = torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(~mask, -10000.0)[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, bias, self.dropout)
        stored = types % 2
        means = []
        for side in ((1 - stored) * mask, stored * mask):
            share = side / side.sum(dim=1, keepdim=True)
            means.append(torch.einsum("bsw,bs->bw", hidden, share.to(hidden.dtype)))
        one, other = means
        pooled = torch.cat([hidden[:, 0], (one - other).abs(), one * other], dim=1)
        pooled = functional.dropout(functional.gelu(self.hidden(pooled)), self.dropout, self.training)
        return self.verdict(pooled)[:, 0].float(), self.difference(hidden)[..., 0].float()


def make_norm(weights: Mapping[str, Tensor], prefix: str) -> nn.LayerNorm:
    """With the base's weights, to be changed."""
    norm = nn.LayerNorm(WIDTH, eps=EPSILON)
    norm.weight = nn.Parameter(weights[f"{prefix}.weight"].clone())
    norm.bias = nn.Parameter(weights[f"{prefix}.bias"].clone())
    return norm
