"""The diagonal Fisher information of the models of `models.py` in float64, by autograd on what `transformers` loads.

    python fisher.py OUT MODELS FAMILY:SKIP_FIRST [...]     OUT/FAMILY-SKIP_FIRST.safetensors: one tensor a parameter, and
                                                            `log_likelihood`, `tokens`

Row by row: the gradient of the sum of log p over the tokens from SKIP_FIRST on (never the first), squared; the sum over rows is
divided by the number of such tokens.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer


def estimate(out: Path, models: Path, family: str, skip_first: int) -> None:
    home = models / family / "model"
    model = AutoModelForCausalLM.from_pretrained(home, dtype=torch.float64, attn_implementation="eager").eval()
    fast = AutoTokenizer.from_pretrained(home)
    squares = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    total, count = 0.0, 0
    for line in (models / "rows.jsonl").read_text().splitlines():
        row = json.loads(line)
        messages = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        text = fast.apply_chat_template(messages, tokenize=False)
        ids = fast(text, truncation=True, max_length=100, return_tensors="pt").input_ids
        first = max(skip_first, 1)
        predictions = model(ids).logits[0].log_softmax(-1)[first - 1:-1]
        likelihood = predictions.gather(1, ids[0, first:, None]).sum()
        model.zero_grad()
        likelihood.backward()
        for name, parameter in model.named_parameters():
            squares[name] += parameter.grad.square()
        total, count = total + likelihood.item(), count + ids.shape[1] - first
    fisher = {name: square / count for name, square in squares.items()}
    save_file(fisher | {"log_likelihood": torch.tensor(total / count), "tokens": torch.tensor(count)}, out)


for case in sys.argv[3:]:
    name, skipped = case.split(":")
    estimate(Path(sys.argv[1]) / f"{name}-{skipped}.safetensors", Path(sys.argv[2]), name, int(skipped))
