"""RegMean++ in float64 on models that `transformers` runs, from the definition alone.

    python regmean_plus_plus.py models OUT FAMILY       two tiny models OUT/a and OUT/b, and OUT/rows-a.jsonl, OUT/rows-b.jsonl
    python regmean_plus_plus.py merge OUT ALPHA [own | WEIGHTS]
                                                        OUT/merged.safetensors: `merged:<tensor>` and `average:<tensor>`

Every tensor starts as the average. Decoder layer by decoder layer, each model's own layer runs on its states, and X^T X / n of
the inputs of its linear modules is taken by hooks; the plain system is solved for each module; then the states of both models go
through the merged layer. With `own` they go through each model's own layer instead: the mistake that a test must see.
WEIGHTS is a JSON list: for each model, its weight at the embedding and each layer in turn, and at norm and head.
"""

import json
import sys
from pathlib import Path

import torch
from models import FAMILIES, ROWS, SMALL, tokenizer
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


def make(out: Path, family: str) -> None:
    """The second model is the first with noise on every weight, as fine-tuning would leave it, only larger."""
    torch.manual_seed(7)
    config = AutoConfig.for_model(**(SMALL | dict(num_hidden_layers=3)), **FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config).float().eval()
    for name in "ab":
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                noise = torch.randn_like(parameter)
                if name == "b":
                    parameter.add_(0.05 * noise)
                else:
                    parameter.copy_(1 + 0.3 * noise if "norm" in parameter_name else 0.12 * noise)
        model.save_pretrained(out / name)
        tokenizer(out / name)
    # Each model has rows of its own.
    alphabet = "abcdefghijklmnopqrstuvwxyz ,.ABC0123456789"
    for name, seed in [("a", 1), ("b", 2)]:
        draw = torch.Generator().manual_seed(seed)
        lengths = torch.randint(20, 90, (12,), generator=draw).tolist()
        texts = ["".join(alphabet[i] for i in torch.randint(len(alphabet), (n,), generator=draw)) for n in lengths]
        rows = [{"text": row["question"] + row["answer"]} for row in ROWS] + [{"text": text} for text in texts]
        (out / f"rows-{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def merge(out: Path, alpha: float, own: bool, stated: list[list[float]] | None) -> None:
    load = lambda name: AutoModelForCausalLM.from_pretrained(out / name, dtype=torch.float64, attn_implementation="eager").eval()
    models, merged = [load("a"), load("b")], load("a")

    def shares(name):
        """The models' weights at a tensor."""
        if stated is None:
            return [1.0 for _ in models]
        parts = name.split(".")
        place = 0 if "embed_tokens" in name else 1 + int(parts[2]) if parts[1] == "layers" else -1
        return [one[place] for one in stated]

    def mean(name):
        return sum(w * model.state_dict()[name] for w, model in zip(shares(name), models)) / sum(shares(name))

    average = {name: mean(name) for name in merged.state_dict()}
    merged.load_state_dict(average)
    result = {}

    # One sequence at a time, so that nothing is padded.
    states = []
    for name in "ab":
        fast = AutoTokenizer.from_pretrained(out / name)
        lines = [json.loads(line)["text"] for line in (out / f"rows-{name}.jsonl").read_text().splitlines()]
        ids = [fast(line, truncation=True, max_length=100, return_tensors="pt").input_ids for line in lines]
        states.append([merged.model.embed_tokens(row) for row in ids])

    def through(model, layer, x):
        places = torch.arange(x.shape[1])[None]
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf"), dtype=x.dtype).triu(1)[None, None]
        output = layer(x, attention_mask=mask, position_ids=places, position_embeddings=model.model.rotary_emb(x, places))
        return output[0] if isinstance(output, tuple) else output

    def grams(module, run, rows):
        """X^T X / n of what each linear module in `module` sees while `run` runs on every row."""
        sums, count = {}, 0

        def hook(name):
            def see(_, inputs):
                x = inputs[0].reshape(-1, inputs[0].shape[-1])
                sums[name] = sums.get(name, 0) + x.T @ x
            return see

        linears = [(name, part) for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)]
        handles = [part.register_forward_pre_hook(hook(name)) for name, part in linears]
        for row in rows:
            run(row)
            count += row.shape[1]
        for handle in handles:
            handle.remove()
        return {name: total / count for name, total in sums.items()}

    def solve(name, found, weights):
        shrunk = [u * (alpha * g + (1 - alpha) * torch.diag(g.diagonal())) for u, g in zip(shares(name), found)]
        solution = torch.linalg.solve(sum(shrunk), sum(g @ w.T for g, w in zip(shrunk, weights))).T.contiguous()
        result["merged:" + name], result["average:" + name] = solution, average[name].clone()
        return solution

    with torch.no_grad():
        for index, layer in enumerate(merged.model.layers):
            theirs = [model.model.layers[index] for model in models]
            found = [grams(part, lambda x, m=model, p=part: through(m, p, x), rows)
                     for model, part, rows in zip(models, theirs, states)]
            for name in found[0]:
                weights = [part.get_submodule(name).weight for part in theirs]
                solution = solve(f"model.layers.{index}.{name}.weight", [one[name] for one in found], weights)
                layer.get_submodule(name).weight.copy_(solution)
            states = [[through(model, part, x) if own else through(merged, layer, x) for x in rows]
                      for model, part, rows in zip(models, theirs, states)]
        if not merged.config.tie_word_embeddings:
            found = [grams(merged.lm_head, lambda x: merged.lm_head(merged.model.norm(x)), rows) for rows in states]
            solve("lm_head.weight", [one[""] for one in found], [model.lm_head.weight for model in models])
    save_file(result, out / "merged.safetensors")


if __name__ == "__main__":
    home = Path(sys.argv[2])
    if sys.argv[1] == "models":
        make(home, sys.argv[3])
    else:
        own = sys.argv[4:] == ["own"]
        merge(home, float(sys.argv[3]), own, json.loads(sys.argv[4]) if sys.argv[4:] and not own else None)
