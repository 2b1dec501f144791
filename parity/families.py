"""Random tiny Llama checkpoints: families of a base and of models that are the base and some noise."""

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

VOCABULARY = 96
# Stored type of each family of a seed. Elements of a difference are all of different sizes in the first kind and often of one
# size in the second, where it is left to an unstable sort in mergekit which of them is among the largest.
STORED = (torch.float32, torch.bfloat16, torch.float32, torch.bfloat16)
# Models whose every weight differs from the base's, and by how much of its size at least and at most.
DENSE = ("a", "b", "c")
SIZES = (0.01, 0.3)
# Models that share many weights with the base, for methods that ask where models differ.
SPARSE = ("s", "t", "u")
# Models with tokens of their own: in another order; without some and with more; with more again.
TOKENS = ("ordered", "fewer", "more")
# A model that is off by anything from next to nothing to a lot, for `nearswap`.
NEAR = "near"


@dataclass(frozen=True)
class Family:
    """Models of one shape and one stored type."""

    path: str
    """Directory of the models, relative to the project's root."""
    stored: torch.dtype
    layers: int
    hidden: int

    def model(self, name: str) -> str:
        return f"{self.path}/{name}"


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model directory."""
    found = {}
    for file in sorted(directory.glob("*.safetensors")):
        found |= load_file(file)
    return found


def depth(directory: Path) -> int:
    """How many layers a model's configuration says that it has."""
    return json.loads((directory / "config.json").read_text())["num_hidden_layers"]


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    found = {"model.embed_tokens.weight": (VOCABULARY, hidden)}
    for layer in range(config["num_hidden_layers"]):
        of_layer = {
            "input_layernorm": (hidden,),
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "post_attention_layernorm": (hidden,),
            "mlp.up_proj": (inner, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in of_layer.items()}
    return found | {"model.norm.weight": (hidden,), "lm_head.weight": (VOCABULARY, hidden)}


class Weights:
    """Draws the tensors of one family."""

    def __init__(self, seed: int, stored: torch.dtype) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.stored = stored

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator) * (high - low) + low

    def base(self, shape: tuple[int, ...]) -> torch.Tensor:
        """A matrix of the size that trained ones have, or the scales of a norm."""
        value = 1 + 0.1 * self.normal(shape) if len(shape) == 1 else self.normal(shape) * self.uniform((), 0.02, 0.05)
        return value.to(self.stored)

    def dense(self, base: torch.Tensor, size: float) -> torch.Tensor:
        """The base and noise of so much of its size in some tensors, half or twice of that in others."""
        scale = rms(base) * size * self.uniform((), -1, 1).exp2()
        value = (base.float() + scale * self.normal(base.shape)).to(self.stored)
        while self.stored == torch.float32 and (twice := repeated((value - base).abs())).any():
            value[twice] = base[twice] + scale * self.normal((int(twice.sum()),))
        return value

    def sparse(self, base: torch.Tensor, size: float) -> torch.Tensor:
        kept = self.uniform(base.shape, 0, 1) < self.uniform((), 0.2, 0.7)
        return torch.where(kept, base, self.dense(base, size))

    def near(self, base: torch.Tensor) -> torch.Tensor:
        sizes = 10 ** self.uniform(base.shape, -6, -1)
        return (base.float() + rms(base) * sizes * self.normal(base.shape)).to(self.stored)


def rms(values: torch.Tensor) -> torch.Tensor:
    """Root of the mean square: the size of a tensor's elements."""
    return values.float().square().mean().sqrt()


def repeated(values: torch.Tensor) -> torch.Tensor:
    """Where a value stands that stood before."""
    order, places = values.flatten().sort(stable=True)
    twice = torch.zeros(values.numel(), dtype=torch.bool)
    twice[places[1:]] = order[1:] == order[:-1]
    return twice.reshape(values.shape)


def words() -> list[str]:
    """Tokens in the order of their ids."""
    return ["<unk>", "<s>", "</s>", *(f"w{n}" for n in range(VOCABULARY - 3))]


def token_ids(directory: Path) -> dict[str, int]:
    """Tokens of a model directory."""
    return Tokenizer.from_file(str(directory / "tokenizer.json")).get_vocab()


class OtherTokens(Exception):
    """Two results whose tokenizers have different tokens."""


def by_token(directory: Path, like: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model directory, rows of its vocabulary in the order that another directory has them in. One without a
    tokenizer has them in the order of its models."""
    found = tensors(directory)
    if not (directory / "tokenizer.json").exists():
        return found
    ids, order = token_ids(directory), token_ids(like)
    if set(ids) != set(order):
        raise OtherTokens(f"tokens of only one of the two: {sorted(set(ids) ^ set(order))}")
    places = torch.arange(len(found["lm_head.weight"]))
    for token, place in order.items():
        places[place] = ids[token]
    return found | {name: found[name][places] for name in ("model.embed_tokens.weight", "lm_head.weight")}


def write(directory: Path, config: dict, weights: dict[str, torch.Tensor], tokens: list[str], special: list[str]) -> None:
    """Writes a model directory; special tokens have the ids after the others."""
    directory.mkdir(parents=True)
    config = config | {"vocab_size": len(tokens) + len(special)}
    save_file({name: value.contiguous() for name, value in weights.items()}, directory / "model.safetensors", {"format": "pt"})
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    places = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(places, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(directory / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(named, indent=2))


def make(root: Path, seed: int) -> list[Family]:
    """Writes the families of a seed below `root`. The same seed gives the same bytes."""
    return [family(root, place, stored, random.Random(f"{seed}/family/{place}")) for place, stored in enumerate(STORED)]


def family(root: Path, place: int, stored: torch.dtype, draw: random.Random) -> Family:
    heads = draw.choice((2, 4))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": (hidden := draw.choice((32, 48, 64))),
        "intermediate_size": draw.choice((80, 96, 112)),
        "num_hidden_layers": (layers := draw.randint(2, 4)),
        "num_attention_heads": heads,
        "num_key_value_heads": draw.choice((1, 2)),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": str(stored).removeprefix("torch."),
    }
    weights = Weights(draw.getrandbits(60), stored)
    # Sizes that differ: one of each third of the range, in any order.
    low, high = map(math.log, SIZES)
    thirds = [low + (high - low) * (third + draw.random()) / len(DENSE) for third in range(len(DENSE))]
    draw.shuffle(thirds)
    base = {name: weights.base(shape) for name, shape in shapes(config).items()}
    drawn = {"base": base, NEAR: {name: weights.near(value) for name, value in base.items()}}
    for model, size in zip(DENSE, map(math.exp, thirds)):
        drawn[model] = {name: weights.dense(value, size) for name, value in base.items()}
    for model in SPARSE:
        drawn[model] = {name: weights.sparse(value, draw.uniform(0.05, 0.2)) for name, value in base.items()}
    found = Family(f"models/{place}", stored, layers, hidden)
    for model, values in drawn.items():
        write(root / found.model(model), config, values, words(), [])
    for model, (tokens, special) in vocabularies(random.Random(f"{place}/{stored}/tokens")).items():
        count = len(tokens) + len(special)
        values = {name: weights.dense(value, 0.2) for name, value in base.items()}
        values |= {name: weights.base((count, hidden)) for name in ("model.embed_tokens.weight", "lm_head.weight")}
        write(root / found.model(model), config, values, tokens, special)
    return found


def vocabularies(draw: random.Random) -> dict[str, tuple[list[str], list[str]]]:
    """The tokens and the special tokens of [`TOKENS`]."""
    ordered, fewer, more = words(), words()[:-7], [*words()[:-3], "only", "these"]
    for tokens in (ordered, fewer, more):
        draw.shuffle(tokens)
    return dict(zip(TOKENS, ((ordered, []), (fewer, ["<user>", "<tool>"]), (more, ["<user>", "<end>"]))))
