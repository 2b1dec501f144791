"""Loads model directories with `transformers` as the class that their config names, and runs a few tokens through each.

    python loads.py MODEL [MODEL ...]

fails where a weight is missing, unknown or of another shape, or an output is not finite.
"""

import sys

import torch
import transformers

for path in sys.argv[1:]:
    config = transformers.AutoConfig.from_pretrained(path)
    kind = getattr(transformers, config.architectures[0])
    model, info = kind.from_pretrained(path, output_loading_info=True)
    wrong = [name for names in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in info[names]]
    assert not wrong, f"{path}: {wrong}"
    with torch.no_grad():
        logits = model(torch.tensor([[0, 7, 9, 1]])).logits
    assert logits.isfinite().all() and logits.std() > 0, path
