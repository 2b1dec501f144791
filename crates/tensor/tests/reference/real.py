"""What `transformers` computes with a real model: Grams by hooks, token ids, assistant masks, losses.

    python real.py MODEL ROWS OUT

MODEL is a Llama directory (`make real`), ROWS a folder with chat.jsonl ({question, answer}) and text.jsonl ({text}). Writes

    OUT/<case>.safetensors   gram:<module>  X^T X / n over the tokens that count, fp32 forward pass, summed in float64
    OUT/reference.json       per case: ids and counts (which tokens count) of each row; per module: how far the Gram of
                             `transformers`' own bfloat16 pass is from the fp32 one, what share of the trace the
                             first token of each row holds and what share the largest feature; per case the loss:
                             `nll`, -log p of the tokens that count, without the first of each row, in nats (fp32
                             logits, summed in float64), how many they are, and the bytes of text that they stand for,
                             where a character is that of the first token it is in

for the cases `chat`, `assistant` (chat rows, only what the assistant says counts) and `text`. Rows run one at a time, so
there is no padding. The distance is the root mean square of (A - B)ij / sqrt(Bii Bjj): no feature, however large, hides another.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

# Around what an assistant turn has over the prompt for it, in the template that the model ships: `transformers` finds the
# assistant's tokens by these blocks alone.
PLAIN = "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
MARKED = ("{{ '<|im_start|>' + message['role'] + '\n' }}{% if message['role'] == 'assistant' %}{% generation %}"
          "{{ message['content'] + '<|im_end|>' + '\n' }}{% endgeneration %}{% else %}"
          "{{ message['content'] + '<|im_end|>' + '\n' }}{% endif %}")


def token_bytes(text: str, offsets) -> list:
    """Bytes of a text that each token stands for."""
    found, owned = [], set()
    for start, end in offsets:
        mine = set(range(start, end)) - owned
        owned |= mine
        found.append(sum(len(text[character].encode()) for character in mine))
    return found


def encode(tokenizer, text: str):
    """Token ids of a text, and the bytes that each stands for."""
    encoded = tokenizer(text, return_offsets_mapping=True)
    return encoded.input_ids, token_bytes(text, encoded.offset_mapping)


def chat(tokenizer, path: Path):
    """Token ids of each row, the bytes that each stands for, and which of them the assistant says."""
    marked = tokenizer.chat_template.replace(PLAIN, MARKED)
    if marked == tokenizer.chat_template:
        sys.exit("the model's chat template is not the one that this program knows how to mark")
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        messages = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        ids, sizes = encode(tokenizer, tokenizer.apply_chat_template(messages, tokenize=False))
        masked = tokenizer.apply_chat_template(messages, chat_template=marked, tokenize=True, return_dict=True,
                                               return_assistant_tokens_mask=True)
        if masked["input_ids"] != ids:
            sys.exit("the marked template renders unlike the model's own")
        yield ids, sizes, masked["assistant_masks"]


def text(tokenizer, path: Path):
    """Token ids of each row and the bytes that each stands for; all of them count."""
    for line in path.read_text(encoding="utf-8").splitlines():
        ids, sizes = encode(tokenizer, json.loads(line)["text"])
        yield ids, sizes, [1] * len(ids)


class Sums:
    """float64 sums of x x^T over the tokens that count, of each linear layer's input, for several masks at once; and losses."""

    def __init__(self, model, masks: int) -> None:
        self.sums = [{} for _ in range(masks)]
        self.first = [{} for _ in range(masks)]
        self.counts = [0] * masks
        self.losses = [{"nll": 0.0, "tokens": 0, "bytes": 0} for _ in range(masks)]
        self.row = []
        self.last = (None, None)
        # The tied lm_head is the embedding and has no Gram.
        self.handles = [module.register_forward_pre_hook(self.hook(name)) for name, module in model.named_modules()
                        if isinstance(module, torch.nn.Linear) and name != "lm_head"]

    def hook(self, name: str):
        def run(_, inputs) -> None:
            if self.last[0] is inputs[0]:
                # The very same tensor as the layer before: q/k/v, gate/up.
                for sums, first in zip(self.sums, self.first):
                    sums[name], first[name] = sums[self.last[1]], first[self.last[1]]
                return
            self.last = (inputs[0], name)
            rows = inputs[0].detach()[0].double()
            for mask, sums, first in zip(self.row, self.sums, self.first):
                x = rows[mask]
                if name not in sums:
                    sums[name] = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
                sums[name].addmm_(x.T, x)
                first[name] = first.get(name, 0.0) + (rows[0].square().sum().item() if mask[0] else 0.0)

        return run

    def run(self, model, rows) -> None:
        """Runs rows of (ids, bytes, masks), each by itself."""
        with torch.no_grad():
            for ids, sizes, *masks in rows:
                self.row = [torch.tensor(mask, dtype=torch.bool) for mask in masks]
                self.counts = [count + sum(mask) for count, mask in zip(self.counts, masks)]
                logits = model(torch.tensor([ids])).logits[0, :-1].float()
                loss = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none").double()
                for mask, losses in zip(self.row, self.losses):
                    losses["nll"] += loss[mask[1:]].sum().item()
                    losses["tokens"] += int(mask[1:].sum())
                    losses["bytes"] += int(torch.tensor(sizes[1:])[mask[1:]].sum())
        for handle in self.handles:
            handle.remove()


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the difference over sqrt(gii gjj)."""
    scale = expected.diagonal().sqrt()
    return ((found - expected) / scale[:, None] / scale[None, :]).square().mean().sqrt().item()


def main(directory: Path, data: Path, out: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    chats, texts = list(chat(tokenizer, data / "chat.jsonl")), list(text(tokenizer, data / "text.jsonl"))
    both = [(ids, sizes, [1] * len(ids), said) for ids, sizes, said in chats]
    runs = [(["chat", "assistant"], both), (["text"], texts)]
    models = {dtype: AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()
              for dtype in (torch.float32, torch.bfloat16)}
    reference = {}
    for cases, rows in runs:
        exact, rounded = (Sums(model, len(cases)) for model in models.values())
        exact.run(models[torch.float32], rows)
        rounded.run(models[torch.bfloat16], rows)
        for index, case in enumerate(cases):
            count, figures, grams = exact.counts[index], {}, {}
            for name, total in exact.sums[index].items():
                diagonal = total.diagonal()
                figures[name] = {
                    "bfloat16": distance(rounded.sums[index][name], total),
                    "first_token_share": exact.first[index][name] / diagonal.sum().item(),
                    "largest_feature_share": (diagonal.max() / diagonal.sum()).item(),
                }
                grams[f"gram:{name}"] = (total / count).float()
            # Modules that share an input share a tensor, which the format refuses to hold twice.
            save_file({name: gram.clone() for name, gram in grams.items()}, out / f"{case}.safetensors")
            reference[case] = {"rows": [{"ids": row[0], "counts": row[2 + index]} for row in rows], "modules": figures,
                               "loss": exact.losses[index]}
    (out / "reference.json").write_text(json.dumps(reference))


if __name__ == "__main__":
    torch.set_num_threads(2)
    Path(sys.argv[3]).mkdir(parents=True, exist_ok=True)
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
