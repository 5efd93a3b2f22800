"""A Llama-shaped decoder in torch, with the parameter names and the rotary layout of transformers' LlamaForCausalLM."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder; widths are multiples of 32 so that weights cut into blocks of 32 for quantization."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    context: int = 512
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5


class Norm(nn.Module):  # type: ignore[misc]
    """RMSNorm."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that ends in the width."""
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)).to(x.dtype) * self.weight.to(
            x.dtype
        )


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding in float32, the two halves of a head paired (rotate-half)."""
    first, second = x.float().chunk(2, -1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), -1).to(x.dtype)


def causal_mask(length: int, device: torch.device) -> Tensor:
    """[length, length], true where a place may look."""
    place = torch.arange(length, device=device)
    return place[None, :] <= place[:, None]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention written out: the backward pass of torch's fused one took half of a training step on a CPU."""
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    return scores.masked_fill(~mask, -1e30).softmax(-1).to(v.dtype) @ v


class Attention(nn.Module):  # type: ignore[misc]
    """Grouped-query attention."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.width, shape.heads * shape.head_width, bias=False)
        self.k_proj = nn.Linear(shape.width, shape.kv_heads * shape.head_width, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.kv_heads * shape.head_width, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_width, shape.width, bias=False)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, past: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        """`x` [batch, length, width]; without a mask attention is causal."""
        batch, length, _ = x.shape
        q = self.q_proj(x).view(batch, length, self.shape.heads, -1).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.shape.kv_heads, -1).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.shape.kv_heads, -1).transpose(1, 2)
        q, k = rotate(q, *rotary), rotate(k, *rotary)
        if past is not None:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
        groups = self.shape.heads // self.shape.kv_heads
        wide_k, wide_v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        y = attend(q, wide_k, wide_v, causal_mask(length, x.device) if mask is None else mask)
        return self.o_proj(y.transpose(1, 2).reshape(batch, length, -1)), (k, v)


class Feedforward(nn.Module):  # type: ignore[misc]
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        y: Tensor = self.down_proj(fn.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


class Layer(nn.Module):  # type: ignore[misc]
    """Attention and feed-forward, each behind a norm and beside a residual."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = Feedforward(shape)
        self.input_layernorm = Norm(shape.width, shape.norm_epsilon)
        self.post_attention_layernorm = Norm(shape.width, shape.norm_epsilon)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None, past: KeysValues | None
    ) -> tuple[Tensor, KeysValues]:
        """[batch, length, width] to the same."""
        y, kept = self.self_attn(self.input_layernorm(x), rotary, mask, past)
        x = x + y
        return x + self.mlp(self.post_attention_layernorm(x)), kept


class Trunk(nn.Module):  # type: ignore[misc]
    """Everything between token ids and logits; called `model` in a checkpoint."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.norm_epsilon)


class Decoder(nn.Module):  # type: ignore[misc]
    """The language model; its input embedding is also its output matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Trunk(shape)
        half = shape.head_width // 2
        angles = torch.outer(
            torch.arange(shape.context).float(), shape.rope_theta ** (-torch.arange(half).float() / half)
        )
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                deviation = 0.02 if "embed" in name else parameter.shape[1] ** -0.5
                nn.init.normal_(parameter, std=deviation / (2 * self.shape.layers) ** 0.5 if residual else deviation)

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        past: list[KeysValues] | None = None,
    ) -> tuple[Tensor, list[KeysValues]]:
        """Token ids [batch, length] to normed states [batch, length, width] and each layer's keys and values.

        `positions` [batch, length] and a boolean `mask` [batch, 1, length, past + length] are needed only when rows
        are padded or continued.
        """
        x = self.model.embed_tokens(ids)
        if positions is None:
            rotary = (self.cosine[: ids.shape[1]], self.sine[: ids.shape[1]])
        else:
            rotary = (self.cosine[positions][:, None], self.sine[positions][:, None])
        kept = []
        for index, layer in enumerate(self.model.layers):
            x, keys_values = layer(x, rotary, mask, None if past is None else past[index])
            kept.append(keys_values)
        return self.model.norm(x), kept

    def logits(self, states: Tensor) -> Tensor:
        """[..., width] to [..., vocabulary]."""
        return fn.linear(states, self.model.embed_tokens.weight)

    def forward(self, ids: Tensor, places: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of `targets` [n] at `places` [n], which count through `ids` [batch, length] row by row.

        A target of -100 does not count.
        """
        states, _ = self.hidden(ids)
        return fn.cross_entropy(self.logits(states.flatten(0, 1)[places]).float(), targets)
