"""Tiny random models of families without a native forward pass, two of each, and the Grams of their linear layers.

    python engine.py OUT

writes, per family and model, OUT/<family>/<a or b>/model and OUT/<family>/<a or b>/reference.safetensors:

    all:<module>     X^T X / n of each linear layer's input over all tokens, float64, one row at a time, by its stored name
    later:<module>   the same without the first three tokens of each row

Rows are in OUT/rows.jsonl, those of models.py. A tiny llama of models.py is there as well, for the two engines side by side.
"""

import json
import sys
from pathlib import Path

import torch
from models import FAMILIES as NATIVE
from models import ROWS, build, tokenizer
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, BertForMaskedLM
from transformers.pytorch_utils import Conv1D

SMALL = dict(vocab_size=300, max_position_embeddings=128, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
             num_attention_heads=4)
GEMMA = dict(num_key_value_heads=2, head_dim=16, sliding_window=7, query_pre_attn_scalar=16)

FAMILIES = {
    "gemma2": dict(model_type="gemma2", **SMALL, **GEMMA),
    "gemma3": dict(model_type="gemma3_text", **SMALL, **GEMMA),
    "phi3": dict(model_type="phi3", **SMALL, num_key_value_heads=2, pad_token_id=0, sliding_window=9),
    "gpt2": dict(model_type="gpt2", vocab_size=300, n_positions=128, n_embd=48, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1),
    "bert": dict(model_type="bert", **SMALL),
}


def random_model(options: dict):
    config = AutoConfig.for_model(**options)
    if options["model_type"] == "bert":
        model = BertForMaskedLM._from_config(config, attn_implementation="eager")
    else:
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for name, parameter in model.named_parameters():
        norm = "norm" in name.lower() or "ln_" in name
        with torch.no_grad():
            parameter.copy_(1 + 0.3 * torch.randn_like(parameter) if norm else 0.12 * torch.randn_like(parameter))
    return model.float().eval()


def grams(model, rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    sums, counts = {}, {"all": 0, "later": 0}

    def hook(name):
        def run(_, inputs):
            x = inputs[0].detach().double()[0]
            for kind, part in (("all", x), ("later", x[3:])):
                sums[f"{kind}:{name}"] = sums.get(f"{kind}:{name}", 0) + part.T @ part

        return run

    embedding = model.get_input_embeddings().weight
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, Conv1D)) and module.weight is not embedding:
            module.register_forward_pre_hook(hook(name))
    with torch.no_grad():
        for ids in rows:
            model(ids[None])
            counts["all"] += len(ids)
            counts["later"] += len(ids[3:])
    return {name: total / counts[name.split(":")[0]] for name, total in sums.items()}


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    (target / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS))
    build("llama", NATIVE["llama"], target)
    for seed, (family, family_options) in enumerate(FAMILIES.items()):
        for which in "ab":
            torch.manual_seed(2 * seed + (which == "b"))
            home = target / family / which
            model = random_model(family_options)
            model.save_pretrained(home / "model")
            fast = tokenizer(home / "model")
            messages = [[{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
                        for row in ROWS]
            texts = [fast.apply_chat_template(conversation, tokenize=False) for conversation in messages]
            ids = [fast(text, truncation=True, max_length=100, return_tensors="pt").input_ids[0] for text in texts]
            save_file(grams(model, ids), home / "reference.safetensors")
