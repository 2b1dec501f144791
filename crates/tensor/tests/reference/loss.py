"""What `transformers` and plain PyTorch say of held-out rows: losses, bytes, KL divergences.

    python loss.py OUT

writes what `models.py` writes, beside each OUT/<family>/model a model of the same shape with other weights, OUT/<family>/other,
OUT/texts.jsonl, and OUT/losses.json:

    {family: {case: [{"nll", "kl", "tokens", "bytes"} of each row]}}

Sums over the tokens that count, without the first of a row: of -log p, of KL(other || model), both in nats and float64 from fp32
logits, of tokens, and of bytes of text, where a character is that of the first token it is in. Rows run in one padded batch.
"""

import json
import sys
from pathlib import Path

import torch
from models import FAMILIES, ROWS, build, tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = [{"text": "Plain text, the first of three."}, {"text": "écrit en français ☃"}, {"text": "a  b"}]


def chat(row: dict) -> list:
    return [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]


def cases(fast) -> dict:
    """Per case the rows: text, ids, ranges of characters, which tokens count."""
    rendered = [fast.apply_chat_template(chat(row), tokenize=False) for row in ROWS]
    texts = [row["text"] for row in TEXTS]

    def encoded(rows: list, special: bool, max_length: int) -> list:
        found = []
        for text in rows:
            one = fast(text, add_special_tokens=special, truncation=True, max_length=max_length,
                       return_offsets_mapping=True)
            found.append((text, one["input_ids"], one["offset_mapping"], [1] * len(one["input_ids"])))
        return found

    def assistant(max_length: int) -> list:
        found = []
        for (text, ids, offsets, _), row in zip(encoded(rendered, False, max_length), ROWS):
            masked = fast.apply_chat_template(chat(row), tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
            if masked["input_ids"][:max_length] != ids:
                sys.exit("apply_chat_template tokenises unlike the tokenizer")
            found.append((text, ids, offsets, masked["assistant_masks"][:max_length]))
        return found

    return {"chat": encoded(rendered, True, 100), "cut": encoded(rendered, True, 20), "assistant": assistant(100),
            "text": encoded(texts, True, 100), "bare": encoded(texts, False, 100)}


def log_probabilities(model, rows: list) -> list:
    """Of each row [tokens, vocab], from one batch that is padded on the right."""
    longest = max(len(ids) for _, ids, _, _ in rows)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for _, ids, _, _ in rows])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for _, ids, _, _ in rows])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits
    return [torch.log_softmax(one[:len(ids)].double(), -1) for one, (_, ids, _, _) in zip(logits, rows)]


def losses(model, other, rows: list) -> list:
    found = []
    for (text, ids, offsets, counts), q, p in zip(rows, log_probabilities(model, rows), log_probabilities(other, rows)):
        owner = {}
        for token, (start, end) in enumerate(offsets):
            for character in range(start, end):
                owner.setdefault(character, token)
        at = [token for token in range(1, len(ids)) if counts[token]]
        before = torch.tensor(at, dtype=torch.long) - 1
        found.append({
            "nll": -sum(q[token - 1, ids[token]].item() for token in at),
            "kl": (p[before].exp() * (p[before] - q[before])).sum().item(),
            "tokens": len(at),
            "bytes": sum(len(text[character].encode()) for character, token in owner.items() if token in at),
        })
    return found


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for name, rows in (("rows", ROWS), ("texts", TEXTS)):
        (target / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    reference = {}
    for family, options in FAMILIES.items():
        build(family, options, target)
        home = target / family
        model = AutoModelForCausalLM.from_pretrained(home / "model", dtype=torch.float32, attn_implementation="eager").eval()
        other = AutoModelForCausalLM.from_pretrained(home / "model", dtype=torch.float32, attn_implementation="eager").eval()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(0.03 * torch.randn_like(parameter))
        other.save_pretrained(home / "other")
        tokenizer(home / "other")
        found = cases(AutoTokenizer.from_pretrained(home / "model"))
        reference[family] = {case: losses(model, other, rows) for case, rows in found.items()}
    (target / "losses.json").write_text(json.dumps(reference))
