"""Tests of wider_heads.py on a tiny model, with transformers. Run: make test"""

import tempfile
import unittest
from pathlib import Path

from harness.environment import set_environment
from tiny_model import make_model
from wider_heads import widen


class WiderHeadsTest(unittest.TestCase):
    def test_a_model_with_wider_heads_is_the_same_function(self):
        set_environment({})
        import torch
        from transformers import AutoModelForCausalLM

        with tempfile.TemporaryDirectory() as folder:
            narrow, wide = Path(folder, "narrow"), Path(folder, "wide")
            make_model(narrow, head=24)
            widen(narrow, wide, 32)
            models = [AutoModelForCausalLM.from_pretrained(path) for path in (narrow, wide)]
            self.assertEqual([model.config.head_dim for model in models], [24, 32])
            tokens = torch.randint(2, 40, (4, 60), generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                one, other = (model(tokens).logits for model in models)
            self.assertLess((one - other).abs().max() / one.abs().max(), 1e-5)


if __name__ == "__main__":
    unittest.main()
