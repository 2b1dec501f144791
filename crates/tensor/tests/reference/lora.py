"""Tiny models with LoRA adapters, and what the models are with them, in float32 from the format alone.

    python lora.py OUT
    python lora.py check BASE ADAPTER MODEL

The first writes OUT/<case>/base (a model), OUT/<case>/adapter (an adapter as PEFT saves it) and OUT/<case>/expected.safetensors. Where
`peft` is installed, what is expected is held against its `merge_and_unload`. The second checks that BASE with ADAPTER is MODEL
to 1e-5, by the format, and where `peft` is installed by PEFT, which must know every tensor of the adapter.
"""

import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

LLAMA = dict(model_type="llama", hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, vocab_size=120, attention_bias=True)
GPT2 = dict(model_type="gpt2", n_embd=48, n_layer=2, n_head=4, n_positions=64, vocab_size=120)

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# Per case: the model, the adapter's configuration, and tensors that are trained whole, by their names in the model's state
# dict and in the adapter.
CASES = {
    "plain": (LLAMA, dict(target_modules=PROJECTIONS), {}),
    "patterns": (LLAMA, dict(target_modules=PROJECTIONS, use_rslora=True, alpha_pattern={r".*\.v_proj": 3},
                             rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 6, "layers.0.mlp.*": 3}), {}),
    "whole": (LLAMA, dict(target_modules=["q_proj", "embed_tokens"], bias="all", modules_to_save=["lm_head", "model.norm"]), {
        "lm_head.weight": "lm_head.weight",
        "model.norm.weight": "model.norm.weight",
        "model.embed_tokens.weight": "model.embed_tokens.base_layer.weight",
        "model.layers.0.self_attn.q_proj.bias": "model.layers.0.self_attn.q_proj.base_layer.bias",
        "model.layers.1.self_attn.v_proj.bias": "model.layers.1.self_attn.v_proj.bias",
    }),
    "transposed": (GPT2, dict(target_modules=["c_attn", "c_fc"], fan_in_fan_out=True), {}),
}


def rank_and_alpha(config: dict, module: str) -> tuple[int, float]:
    def of(patterns: dict, default):
        return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)

    return of(config["rank_pattern"], config["r"]), of(config["alpha_pattern"], config["lora_alpha"])


def make(case: str, directory: Path) -> None:
    model, options, whole = CASES[case]
    torch.manual_seed(len(case))
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(**model))
    for name, parameter in base.named_parameters():
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name and "bias" not in name else 0.0, 0.1)
    base.save_pretrained(directory / "base")

    config = dict(peft_type="LORA", task_type="CAUSAL_LM", base_model_name_or_path="org/base", r=4, lora_alpha=8, bias="none",
                  use_rslora=False, use_dora=False, fan_in_fan_out=False, inference_mode=True, init_lora_weights=True,
                  lora_dropout=0.05, modules_to_save=None, rank_pattern={}, alpha_pattern={}) | options
    tensors = {}
    for name, module in base.named_modules():
        if name.rsplit(".", 1)[-1] not in config["target_modules"]:
            continue
        rank, _ = rank_and_alpha(config, name)
        rows, columns = module.weight.shape
        ends = ("lora_A.weight", "lora_B.weight")
        if isinstance(module, torch.nn.Embedding):
            ends = ("lora_embedding_A", "lora_embedding_B")
        if isinstance(module, torch.nn.Embedding) or config["fan_in_fan_out"]:
            rows, columns = columns, rows
        tensors[f"base_model.model.{name}.{ends[0]}"] = torch.randn(rank, columns) * 0.3
        tensors[f"base_model.model.{name}.{ends[1]}"] = torch.randn(rows, rank) * 0.3
    state = base.state_dict()
    for name, saved in whole.items():
        tensors[f"base_model.model.{saved}"] = torch.randn_like(state[name])
    adapter = directory / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    save_file(tensors, adapter / "adapter_model.safetensors")


def adapted(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    state = load_file(base / "model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    tensors = {name.removeprefix("base_model.model."): tensor
               for name, tensor in load_file(adapter / "adapter_model.safetensors").items()}
    for name, tensor in tensors.items():
        if ".lora_" not in name:
            name = name.replace(".base_layer.", ".")
            assert name in state, f"{name} is no tensor of {base}"
            state[name] = tensor.clone()
    for name, a in tensors.items():
        if ".lora_A" not in name and ".lora_embedding_A" not in name:
            continue
        module = name.split(".lora_")[0]
        b = tensors[name.replace("_A", "_B")]
        rank, alpha = rank_and_alpha(config, module)
        change = (b @ a) * (alpha / (math.sqrt(rank) if config["use_rslora"] else rank))
        is_transposed = config["fan_in_fan_out"] or "embedding" in name
        state[f"{module}.weight"] = state[f"{module}.weight"] + (change.T if is_transposed else change)
    return state


def check_with_peft(base: Path, adapter: Path, state: dict[str, torch.Tensor], limit: float) -> None:
    from peft import PeftConfig, PeftModel

    model = PeftModel(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), PeftConfig.from_pretrained(adapter))
    loaded = model.load_adapter(adapter, "default")
    assert not loaded.unexpected_keys, loaded.unexpected_keys
    missing = [name for name in loaded.missing_keys if "lora_" in name or "modules_to_save" in name]
    assert not missing, missing
    compare(model.merge_and_unload().state_dict(), state, limit, f"{adapter} by PEFT")


def compare(found: dict[str, torch.Tensor], state: dict[str, torch.Tensor], limit: float, what: str) -> None:
    for name, tensor in state.items():
        gap = (found[name] - tensor).abs().max().item()
        assert gap < limit, f"{what}: {name} is off by {gap:.1e}"


def check(base: Path, adapter: Path, model: Path) -> None:
    state = load_file(model / "model.safetensors")
    compare(adapted(base, adapter), state, 1e-5, str(adapter))
    if importlib.util.find_spec("peft"):
        check_with_peft(base, adapter, state, 1e-5)


def main() -> None:
    out = Path(sys.argv[1])
    for case in CASES:
        directory = out / case
        directory.mkdir(parents=True)
        make(case, directory)
        base, adapter = directory / "base", directory / "adapter"
        state = adapted(base, adapter)
        if importlib.util.find_spec("peft"):
            check_with_peft(base, adapter, state, 1e-6)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, directory / "expected.safetensors")
    # The first case once more in other forms: the adapter pickled, and the model in 16 bits.
    plain = out / "plain"
    pickled = out / "pickled"
    pickled.mkdir()
    (pickled / "adapter_config.json").write_bytes((plain / "adapter/adapter_config.json").read_bytes())
    torch.save(load_file(plain / "adapter/adapter_model.safetensors"), pickled / "adapter_model.bin")
    model = AutoModelForCausalLM.from_pretrained(plain / "base", dtype=torch.bfloat16)
    model.save_pretrained(out / "half/base", max_shard_size="60KB")


if sys.argv[1] == "check":
    check(*map(Path, sys.argv[2:]))
else:
    main()
