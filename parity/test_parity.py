"""What the comparison finds and lets pass, and what is drawn: `make test` runs them, without mergekit."""

import hashlib
import json
import math
import os
import sys
import tempfile
import types
import unittest
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file

import cases
import comparison
import families
import native
import parity

BFLOAT16 = torch.bfloat16


def tensors(seed: int = 0, stored: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: (0.02 * torch.randn(shape, generator=generator)).to(stored) for name, shape in (("a", (8, 6)), ("b", (6,)))}


def compared(merged: dict, reference: dict, exact: dict | None = None) -> comparison.Merge:
    return comparison.compare(merged, reference, exact or reference)


def bits(pattern: int) -> torch.Tensor:
    """The bfloat16 of a bit pattern."""
    return torch.tensor([pattern - 0x10000 if pattern & 0x8000 else pattern], dtype=torch.int16).view(BFLOAT16)


class Steps(unittest.TestCase):
    def apart(self, first: torch.Tensor, second: torch.Tensor) -> int:
        return int((comparison.steps(first) - comparison.steps(second)).item())

    def test_neighbours_are_one_step_apart_across_a_power_of_two(self) -> None:
        # 1 is 0x3f80; below it are 2⁻⁸ to the next, above it 2⁻⁷.
        below, one, above = bits(0x3F7F), bits(0x3F80), bits(0x3F81)
        self.assertEqual([below.item(), one.item(), above.item()], [1 - 2**-8, 1, 1 + 2**-7])
        self.assertEqual([self.apart(one, below), self.apart(above, one), self.apart(above, below)], [1, 1, 2])
        self.assertEqual([self.apart(-below, -one), self.apart(-one, -above)], [1, 1])

    def test_both_zeros_are_one_number_between_the_smallest_ones(self) -> None:
        smallest = bits(0x0001)
        self.assertGreater(smallest.item(), 0)
        self.assertEqual(self.apart(bits(0x0000), bits(0x8000)), 0)
        self.assertEqual(self.apart(smallest, bits(0x8000)), 1)
        self.assertEqual(self.apart(smallest, -smallest), 2)

    def test_steps_ascend_with_the_values(self) -> None:
        values = torch.arange(-0x8000, 0x8000, dtype=torch.int32).to(torch.int16).view(BFLOAT16)
        values = values[values.isfinite()]
        ordered = values[comparison.steps(values).argsort()].float()
        self.assertTrue((ordered[1:] >= ordered[:-1]).all())
        self.assertEqual(len(comparison.steps(values).unique()), len(values) - 1)


class Compare(unittest.TestCase):
    def test_equal_merges_are_the_same(self) -> None:
        for stored in (torch.float32, BFLOAT16):
            found = compared(tensors(stored=stored), tensors(stored=stored))
            self.assertEqual((found.wrong, found.elements, found.one, found.worst["float32"]), ([], 54, 0, 0))

    def test_the_error_of_a_tensor_is_relative_to_its_norm(self) -> None:
        reference = {"a": torch.tensor([3.0, 4.0])}
        found = compared({"a": torch.tensor([3.0, 4.5])}, reference)
        self.assertAlmostEqual(found.worst["float32"], 0.1)
        self.assertEqual(len(found.wrong), 1)
        self.assertIn("most at [1]: 4.5, mergekit 4", found.wrong[0])

    def test_an_error_above_the_limit_is_found_and_one_below_is_not(self) -> None:
        for share, wrong in ((0.9, 0), (1.1, 1)):
            merged = {"a": tensors()["a"].double() * (1 + share * comparison.LIMIT)}
            self.assertEqual(len(compared(merged, {"a": tensors()["a"].double()}).wrong), wrong)

    def test_one_wrong_element_is_enough(self) -> None:
        for stored in (torch.float32, BFLOAT16):
            merged = tensors(stored=stored)
            merged["a"][3, 2] += 1e-3
            found = compared(merged, tensors(stored=stored))
            self.assertEqual(len(found.wrong), 1)
            self.assertIn("[3, 2]", found.wrong[0])

    def test_a_missing_tensor_and_one_too_many_are_wrong(self) -> None:
        fewer = {"a": tensors()["a"]}
        self.assertEqual(compared(fewer, tensors()).wrong, ["b: missing"])
        self.assertEqual(compared(tensors(), fewer).wrong, ["b: mergekit has no such tensor"])

    def test_another_shape_or_type_is_wrong(self) -> None:
        turned = tensors() | {"a": tensors()["a"].T}
        self.assertEqual(compared(turned, tensors()).wrong, ["a: [6, 8] torch.float32, mergekit's is [8, 6] torch.float32"])
        self.assertEqual(len(compared(tensors(stored=BFLOAT16), tensors()).wrong), 2)

    def test_what_is_no_number_is_wrong(self) -> None:
        for stored in (torch.float32, BFLOAT16):
            for value in (math.nan, math.inf):
                merged, reference = tensors(stored=stored), tensors(stored=stored)
                merged["b"][1] = value
                self.assertEqual(len(compared(merged, reference).wrong), 1)
                reference["b"][1] = value
                self.assertEqual(len(compared(merged, reference).wrong), 1)

    def test_a_tensor_of_zeros_is_the_same_as_itself_only(self) -> None:
        zeros = {"a": torch.zeros(4)}
        self.assertEqual(compared(zeros, zeros).wrong, [])
        self.assertEqual(len(compared({"a": torch.full((4,), 1e-30)}, zeros).wrong), 1)

    def test_one_step_of_bfloat16_passes_and_is_counted_and_two_do_not(self) -> None:
        for steps, counts in ((1, (1, 0)), (2, (0, 1))):
            merged = tensors(stored=BFLOAT16)
            merged["a"].view(torch.int16)[0, 0] += steps
            found = compared(merged, tensors(stored=BFLOAT16))
            self.assertEqual((found.one, len(found.wrong)), counts)

    def test_next_to_zero_steps_are_finer_than_float32_can_tell(self) -> None:
        reference = tensors(stored=BFLOAT16)
        for there, here, near in ((1e-9, -2e-9, 1), (1e-9, 1e-6, 0)):
            reference["a"][0, 0] = there
            merged = {name: value.clone() for name, value in reference.items()}
            merged["a"][0, 0] = here
            found = compared(merged, reference)
            self.assertEqual((found.near_zero, len(found.wrong)), (near, 1 - near))

    def test_float64_decides_where_mergekit_rounds_too_much(self) -> None:
        for stored in (torch.float32, BFLOAT16):
            rounded = tensors(stored=stored)
            rounded["a"] *= 1.05
            found = compared(tensors(stored=stored), rounded, tensors(stored=stored))
            self.assertEqual((found.wrong, found.by_float64), ([], 1))
            neither = compared(tensors(stored=stored), rounded, tensors(1, stored))
            self.assertNotEqual(neither.wrong, [])


class Drawn(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.home = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.home.cleanup)
        cls.root = Path(cls.home.name)
        cls.families = families.make(cls.root / "one", 7)

    def test_the_same_seed_gives_the_same_models(self) -> None:
        def digests(root: Path) -> dict:
            return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
                    for file in sorted(root.rglob("*")) if file.is_file()}

        again, other = self.root / "again", self.root / "other"
        self.assertEqual(families.make(again, 7), self.families)
        families.make(other, 8)
        first = digests(self.root / "one")
        self.assertEqual(len(first), 4 * len(families.STORED) * (2 + len(families.DENSE) + len(families.SPARSE) + len(families.TOKENS)))
        self.assertEqual(digests(again), first)
        self.assertNotEqual(digests(other), first)

    def test_a_case_is_the_same_whatever_else_is_drawn(self) -> None:
        for method in cases.METHODS:
            few, many = (cases.draw(method, self.families, 7, number) for number in (2, 5))
            self.assertEqual(many[:2], few)
            self.assertNotEqual(cases.draw(method, self.families, 8, 5), many)
            self.assertGreater(len({json.dumps(case.config) for case in many}), 1, method)

    def test_models_differ_from_their_base_by_as_much_as_is_said(self) -> None:
        for family in self.families:
            base, *models = (families.tensors(self.root / "one" / family.model(name)) for name in ("base", *families.DENSE))
            sizes = []
            for model in models:
                shares = [(families.rms(model[name].float() - value.float()) / families.rms(value)).item()
                          for name, value in base.items()]
                self.assertTrue(all(families.SIZES[0] / 3 < share < families.SIZES[1] * 3 for share in shares), shares)
                sizes.append(sum(shares) / len(shares))
            self.assertGreater(max(sizes) / min(sizes), 1.5)

    def test_no_two_elements_of_a_difference_are_equal_where_elements_are_ordered(self) -> None:
        ordered = [family for family in self.families if family.stored == torch.float32]
        for family in ordered:
            base, *models = (families.tensors(self.root / "one" / family.model(name))
                             for name in ("base", *families.DENSE, *families.SPARSE))
            for model in models:
                for name, value in base.items():
                    sizes = (model[name] - value).abs()
                    sizes = sizes[sizes > 0]
                    self.assertEqual(len(sizes.unique()), len(sizes))
        for method in ("ties", "breadcrumbs", "breadcrumbs_ties", "sce"):
            used = {model.rsplit("/", 1)[0] for case in cases.draw(method, self.families, 7, 20) for model in case.models()}
            self.assertEqual(used, {family.path for family in ordered})

    def test_where_sizes_are_equal_mergekit_is_to_keep_the_first(self) -> None:
        for method in cases.METHODS:
            drawn = cases.draw(method, self.families, 7, 4)
            stored = {family.path: family.stored for family in self.families}
            for case in drawn:
                self.assertEqual(case.stable, method.endswith("-equals"))
                self.assertTrue(not case.stable or stored[case.models()[0].rsplit("/", 1)[0]] == BFLOAT16)


class Scripted:
    """A mergelab, and a mergekit, that write what they are told."""

    def __init__(self, merged: dict | str, reference: dict, layers: int = 2) -> None:
        self.merged, self.reference, self.layers = merged, reference, layers

    def write(self, out: Path, values: dict, layers: int = 2) -> Path:
        out.mkdir(parents=True)
        save_file(values, out / "model.safetensors")
        (out / "config.json").write_text(json.dumps({"num_hidden_layers": layers}))
        return out

    def merge(self, case: cases.Case) -> Path:
        if isinstance(self.merged, str):
            raise parity.NotMade(self.merged)
        return self.write(Path("mergelab", case.name), self.merged, self.layers)

    def module(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(merge=lambda config, out, stable: self.write(out, self.reference))


class Report(unittest.TestCase):
    CASE = cases.Case("linear-01", {"merge_method": "linear", "models": [{"model": "models/0/a"}]}, "float32")

    def row(self, merged: dict | str, reference: dict, layers: int = 2) -> parity.Row:
        programs = Scripted(merged, reference, layers)
        before = os.getcwd()
        with tempfile.TemporaryDirectory() as directory, mock.patch.dict(sys.modules, reference=programs.module()):
            os.chdir(directory)
            try:
                return parity.hold("linear", [self.CASE], programs)
            finally:
                os.chdir(before)

    def test_a_method_whose_merges_agree_is_the_same(self) -> None:
        row = self.row(tensors(), tensors())
        self.assertEqual(row.failures, [])
        self.assertEqual(row.line(), "| linear | 1 | 0.0e+00 | 0.0e+00 | 0.0e+00 | — | — | — | 0 | same |")

    def test_a_failure_names_the_case_the_tensor_and_the_configuration(self) -> None:
        row = self.row(tensors() | {"b": torch.ones(6)}, tensors())
        self.assertIn("**1 not the same**", row.line())
        self.assertRegex(row.failures[0], r"(?s)^linear-01\n  b: off by .*\n    merge_method: linear\n.*models/0/a.*out_dtype")

    def test_a_configuration_of_another_depth_is_a_failure(self) -> None:
        row = self.row(tensors(), tensors(), layers=3)
        self.assertIn("config.json: 3 layers, mergekit's has 2", row.failures[0])

    def test_a_merge_that_mergelab_does_not_make_is_a_failure(self) -> None:
        row = self.row("error: no such method", tensors())
        self.assertIn("| linear | 1 |", row.line())
        self.assertIn("error: no such method", row.failures[0])


class Native(unittest.TestCase):
    def test_the_base_is_named_and_a_weight_of_all_is_that_of_each(self) -> None:
        config = {"merge_method": "ties", "base_model": "models/0/base",
                  "parameters": {"weight": 0.5, "int8_mask": True, "lambda": 2},
                  "models": [{"model": "models/0/base"}, {"model": "models/0/a", "parameters": {"density": 0.2}},
                             {"model": "models/0/b", "parameters": {"weight": 1}}]}
        self.assertEqual(native.merge(config, "bfloat16"), {
            "method": "ties", "base": "m0-base", "dtype": "bfloat16", "lambda": 2,
            "models": [{"model": "m0-a", "weight": 0.5, "density": 0.2}, {"model": "m0-b", "weight": 1}]})

    def test_to_some_methods_a_base_is_one_more_model(self) -> None:
        config = {"merge_method": "karcher", "base_model": "models/0/base", "models": [{"model": "models/0/a"}]}
        self.assertEqual(native.merge(config, "float32"),
                         {"method": "karcher", "dtype": "float32", "models": [{"model": "m0-a"}, {"model": "m0-base"}]})

    def test_slices_stay_a_mergekit_file(self) -> None:
        with self.assertRaises(native.Unsaid):
            native.merge({"merge_method": "passthrough", "slices": []}, "float32")


if __name__ == "__main__":
    unittest.main()
