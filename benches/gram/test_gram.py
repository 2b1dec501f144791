"""The benchmark's own arithmetic, and the program at the other end of it, held against float64 where it is built."""

import tempfile
import unittest
from pathlib import Path

import torch
from safetensors.torch import save_file

import artifact
import cpu
import gpu
from measure import Capture
from model import Shape, write_model

PROGRAM = Path(__file__).parents[2] / "target/debug/mergelab-tensor"


class Arithmetic(unittest.TestCase):
    def test_operations_of_one_layer_are_those_counted_by_hand(self):
        shape = Shape(hidden=4, mlp=8, layers=1, heads=2, kv_heads=1, vocab=10, head_dim=2)
        # q and o 4x4, k and v 2x4, gate, up and down 8x4.
        self.assertEqual(shape.layer_parameters(), 2 * 16 + 2 * 8 + 3 * 32)
        # Three tokens see 1 + 2 + 3 pairs, two products of 4 multiplications and additions each.
        self.assertEqual(shape.forward_operations([3]), 2 * 3 * 144 + 2 * 2 * 6 * 4)
        # Triangles of widths 4, 4, 4, 8, and lm_head's 4, a multiplication and an addition an entry.
        self.assertEqual(shape.gram_operations([3]), 2 * 3 * (4 * 10 + 36))

    def test_padding_is_to_the_longest_of_each_batch(self):
        self.assertEqual(cpu.padded([5, 1, 2], batch=2), 2 * 5 + 2)
        self.assertEqual(cpu.padded(cpu.EQUAL), sum(cpu.EQUAL))
        self.assertEqual(sorted(cpu.mixed()), sorted(cpu.REAL))

    def test_extrapolation_is_exact_where_time_is_what_it_supposes(self):
        def time(layers, tokens):
            return 0.5 + 0.3 * layers + 1e-6 * tokens + 2e-6 * layers * tokens

        corners = {(layers, tokens): time(layers, tokens) for layers in (1, 2) for tokens in (1000, 2000)}
        self.assertAlmostEqual(gpu.extrapolate(corners, 32, 10**6), time(32, 10**6))

    def test_a_matrix_comes_back_from_its_tiles(self):
        x = torch.randn(9, 5)
        whole = x.T @ x
        wide = torch.zeros(6, 6)
        wide[:5, :5] = whole
        tiles = [wide[i:i + 2, j:j + 2] for i in (0, 2, 4) for j in range(i, 6, 2)]
        with tempfile.TemporaryDirectory() as home:
            save_file({"o": torch.stack(tiles)}, Path(home) / "layer")
            found = artifact.gram(Path(home), {"file": "layer", "tensor": "o", "width": 5, "tile": 2})
        self.assertLess(artifact.gap(found, whole), 1e-6)
        self.assertGreater(artifact.gap(found, 1.01 * whole), 5e-3)


@unittest.skipUnless(PROGRAM.exists(), "mergelab-tensor is not built (make build, make test)")
class Program(unittest.TestCase):
    def test_its_grams_are_those_of_float64(self):
        with tempfile.TemporaryDirectory() as home:
            scratch = Path(home)
            shape = Shape(layers=2, **gpu.SMALL)
            model = write_model(scratch / "model", shape)
            capture = Capture(PROGRAM, scratch, "cpu", 2)
            gaps = gpu.errors(capture, model, shape, scratch, "cpu")
        self.assertEqual(len(gaps["float32"]), 4)
        self.assertLess(max(gaps["float32"].values()), 1e-5)
        self.assertLess(max(gaps["bfloat16"].values()), 2e-2)
        self.assertGreater(min(gaps["bfloat16"].values()), 1e-5)


if __name__ == "__main__":
    unittest.main()
