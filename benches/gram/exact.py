"""A Llama's Grams in float64: what they would be if nothing were rounded. Needs torch and safetensors, nothing else."""

from pathlib import Path

import torch
from safetensors import safe_open

from model import Shape

EPS = 1e-5
THETA = 500000.0


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def rotate(x: torch.Tensor) -> torch.Tensor:
    """Rotary positions; `x` is `[rows, heads, length, head_dim]`."""
    length, half = x.shape[-2], x.shape[-1] // 2
    inverse = THETA ** -(torch.arange(half, dtype=x.dtype, device=x.device) / half)
    angles = torch.arange(length, dtype=x.dtype, device=x.device)[:, None] * inverse
    cosine, sine = angles.cos(), angles.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine], -1)


def attention(shape: Shape, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Causal attention; all are `[rows, length, heads * head_dim]`."""
    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, shape.head_dim)).transpose(1, 2)

    groups = shape.heads // shape.kv_heads
    q, k, v = rotate(heads(q)), rotate(heads(k)), heads(v)
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.transpose(-1, -2) / shape.head_dim**0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return (scores.masked_fill(future, float("-inf")).softmax(-1) @ v).transpose(1, 2).flatten(-2)


def first_layer(model: Path, shape: Shape, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Module -> X^T X / n of the first layer's four inputs, float64; `ids` is `[rows, length]`, on the device to compute on."""
    with safe_open(model / "model.safetensors", "pt") as file:
        def weight(name: str) -> torch.Tensor:
            return file.get_tensor(name).to(ids.device, torch.float64)

        at = "model.layers.0."
        grams = {}

        def linear(x: torch.Tensor, *modules: str) -> list[torch.Tensor]:
            flat = x.flatten(0, 1)
            grams[at + modules[0]] = flat.T @ flat / flat.shape[0]
            return [x @ weight(f"{at}{module}.weight").T for module in modules]

        states = weight("model.embed_tokens.weight")[ids]
        q, k, v = linear(norm(states, weight(f"{at}input_layernorm.weight")),
                         "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        states = states + linear(attention(shape, q, k, v), "self_attn.o_proj")[0]
        gate, up = linear(norm(states, weight(f"{at}post_attention_layernorm.weight")), "mlp.gate_proj", "mlp.up_proj")
        linear(torch.nn.functional.silu(gate) * up, "mlp.down_proj")
        return grams
