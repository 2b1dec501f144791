"""Random Llama models of a chosen shape, and rows of chosen lengths. Needs torch and safetensors, nothing else.

The tokenizer has one word per id (`w17` is 17) and adds nothing, so that a row of n words is a row of n tokens.
"""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import save_file


@dataclasses.dataclass(frozen=True)
class Shape:
    """A Llama's shape, and the operations that its Grams need."""

    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    head_dim: int

    def layer_parameters(self) -> int:
        """Elements of one decoder layer's matrices."""
        attention = 2 * self.heads * self.head_dim + 2 * self.kv_heads * self.head_dim
        return self.hidden * (attention + 3 * self.mlp)

    def inputs(self) -> list[int]:
        """Widths of the distinct inputs of one layer's linear modules: q/k/v, o, gate/up, down."""
        return [self.hidden, self.heads * self.head_dim, self.hidden, self.mlp]

    def forward_operations(self, lengths: list[int]) -> float:
        """Multiplications and additions of the decoder layers, causal attention included; without the logits, which no
        Gram needs."""
        products = 2 * sum(lengths) * self.layer_parameters()
        attention = 2 * sum(length * (length + 1) for length in lengths) * self.heads * self.head_dim
        return float(self.layers * (products + attention))

    def gram_operations(self, lengths: list[int]) -> float:
        """Those of the upper triangles of the distinct Grams; the last one is the input of lm_head."""
        widths = self.layers * self.inputs() + [self.hidden]
        return float(sum(lengths) * sum(width * (width + 1) for width in widths))


def tensors(shape: Shape, seed: int) -> dict[str, torch.Tensor]:
    """Normal weights of standard deviation 0.02, as models are initialised; norms near one."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return (torch.randn(*size, generator=generator) * 0.02).bfloat16()

    def norm() -> torch.Tensor:
        return (1 + 0.1 * torch.randn(shape.hidden, generator=generator)).bfloat16()

    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    weights = {"model.embed_tokens.weight": normal(shape.vocab, shape.hidden), "model.norm.weight": norm(),
               "lm_head.weight": normal(shape.vocab, shape.hidden)}
    for layer in range(shape.layers):
        at = f"model.layers.{layer}."
        weights |= {
            f"{at}input_layernorm.weight": norm(),
            f"{at}post_attention_layernorm.weight": norm(),
            f"{at}self_attn.q_proj.weight": normal(queries, shape.hidden),
            f"{at}self_attn.k_proj.weight": normal(keys, shape.hidden),
            f"{at}self_attn.v_proj.weight": normal(keys, shape.hidden),
            f"{at}self_attn.o_proj.weight": normal(shape.hidden, queries),
            f"{at}mlp.gate_proj.weight": normal(shape.mlp, shape.hidden),
            f"{at}mlp.up_proj.weight": normal(shape.mlp, shape.hidden),
            f"{at}mlp.down_proj.weight": normal(shape.hidden, shape.mlp),
        }
    return weights


def write_model(directory: Path, shape: Shape, seed: int = 0) -> Path:
    """Writes a model directory: config, bf16 safetensors, tokenizer."""
    directory.mkdir(parents=True)
    save_file(tensors(shape, seed), directory / "model.safetensors", metadata={"format": "pt"})
    write_config(directory, shape)
    write_tokenizer(directory, shape)
    return directory


def write_config(directory: Path, shape: Shape) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "hidden_size": shape.hidden, "intermediate_size": shape.mlp, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim,
        "vocab_size": shape.vocab, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
        "bos_token_id": 0, "eos_token_id": 1,
    }
    (directory / "config.json").write_text(json.dumps(config, indent=1))


def write_tokenizer(directory: Path, shape: Shape) -> None:
    # Special tokens are cut out of the text before it is split into words, so no word may begin with one.
    words = {"<s>": 0, "</s>": 1} | {f"w{index}": index for index in range(2, shape.vocab)}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<s>"},
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def write_rows(path: Path, shape: Shape, lengths: list[int], seed: int = 0) -> Path:
    """Writes rows of random tokens, as JSON Lines with one column `text`."""
    generator = torch.Generator().manual_seed(seed)
    with path.open("w") as file:
        for length in lengths:
            ids = torch.randint(2, shape.vocab, (length,), generator=generator).tolist()
            file.write(json.dumps({"text": " ".join(f"w{index}" for index in ids)}) + "\n")
    return path
