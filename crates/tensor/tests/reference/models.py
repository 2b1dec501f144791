"""Tiny random models of every native family, and what `transformers` computes with them.

    python models.py OUT

writes, per family, OUT/<family>/model (a model directory with tokenizer and chat template) and
OUT/<family>/reference.safetensors:

    gram:<module>   X^T X / n of each linear layer's input over real tokens, float64, by forward hooks on the fp32 model
    logits:<row>    logits of a row, fp32
    ids:<row>       token ids of a row

Rows are in OUT/rows.jsonl. Weights are random with norms away from one and biases away from zero, so that an option that is
not honoured shows.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

CHAT_TEMPLATE = """{{ bos_token }}{% for message in messages %}
{% if message.role == 'user' %}
<|user|>{{ message.content | trim }}
{% else %}
<|assistant|>{% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}

{% endif %}
{% endfor %}
{% if add_generation_prompt %}<|assistant|>{% endif %}"""

ROWS = [
    {"question": "What is 2 + 2?", "answer": "It is 4, of course."},
    {"question": "Näme a cölour ☃", "answer": "blue"},
    {"question": "  spaces  ", "answer": "new\nline\t and 'quotes'"},
    {"question": "Same length A", "answer": "12345"},
    {"question": "Same length B", "answer": "67890"},
    {"question": "Long " * 12, "answer": "the end of a long row that is cut at the maximum length of tokens " * 2},
]

SMALL = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=128, vocab_size=300)

FAMILIES = {
    "llama": dict(model_type="llama", rms_norm_eps=1e-5, rope_theta=10000.0),
    "llama31": dict(model_type="llama", rope_theta=500000.0, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32)),
    "llama32-tied": dict(model_type="llama", tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
                         rope_scaling=dict(rope_type="linear", factor=2.0)),
    "mistral": dict(model_type="mistral", sliding_window=7, head_dim=16),
    "qwen2": dict(model_type="qwen2", use_sliding_window=True, sliding_window=9, max_window_layers=1),
    "qwen3": dict(model_type="qwen3", head_dim=24),
}


def tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE without merges: any text, ids under 300."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(["<s>", "</s>", "<|user|>", "<|assistant|>", *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>",
                                   extra_special_tokens=["<|user|>", "<|assistant|>"])
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(directory)
    return AutoTokenizer.from_pretrained(directory)


def build(name: str, options: dict, out: Path) -> None:
    torch.manual_seed(sorted(FAMILIES).index(name))
    config = AutoConfig.for_model(**SMALL, **options)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    for parameter_name, parameter in model.named_parameters():
        with torch.no_grad():
            if "norm" in parameter_name:
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            else:
                parameter.copy_(0.12 * torch.randn_like(parameter))
    directory = out / name / "model"
    model.save_pretrained(directory)
    fast = tokenizer(directory)
    capture(model, fast, out / name / "reference.safetensors")


def capture(model, fast, path: Path) -> None:
    sums, count, reference = {}, 0, {}

    def hook(module_name):
        def run(_, inputs):
            x = inputs[0].detach().double().reshape(-1, inputs[0].shape[-1])
            sums[module_name] = sums.get(module_name, 0) + x.T @ x

        return run

    handles = [module.register_forward_pre_hook(hook(module_name))
               for module_name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        for index, row in enumerate(ROWS):
            messages = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
            text = fast.apply_chat_template(messages, tokenize=False)
            ids = fast(text, truncation=True, max_length=100, return_tensors="pt").input_ids
            masked = fast.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
            reference[f"assistant:{index}"] = torch.tensor(masked["assistant_masks"])
            reference[f"ids:{index}"] = ids[0]
            reference[f"logits:{index}"] = model(ids).logits[0].float().clone()
            count += ids.shape[1]
    for handle in handles:
        handle.remove()
    tied = model.config.tie_word_embeddings
    reference |= {f"gram:{module_name}": total / count for module_name, total in sums.items()
                  if not (tied and module_name == "lm_head")}
    save_file(reference, path)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    (target / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS))
    for family, family_options in FAMILIES.items():
        build(family, family_options, target)
