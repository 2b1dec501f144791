"""The benchmark's own arithmetic: its reference against other ways to the same solution, and which rows are held out."""

import sys
import unittest
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "gram"))

import systems
import text

WIDTH, ROWS = 24, 7


def case(tokens: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Grams of that many tokens, fp32, and two weights."""
    generator = torch.Generator().manual_seed(tokens)
    inputs = [torch.randn(tokens, WIDTH, generator=generator) for _ in range(2)]
    weights = [torch.randn(ROWS, WIDTH, generator=generator) for _ in range(2)]
    return [x.T @ x / tokens for x in inputs], weights


def exact(grams: list[torch.Tensor], weights: list[torch.Tensor], alpha: float) -> tuple[torch.Tensor, int]:
    first, second = (weight.double() for weight in weights)
    found, cut = systems.correction(grams, [(first - second) / 2], alpha)
    return (first + second) / 2 + found[0], cut


class Solver(unittest.TestCase):
    def test_at_full_rank_the_reference_solves_the_plain_system(self) -> None:
        for alpha in (0.1, 0.9, 1.0):
            grams, weights = case(400)
            first, second = (systems.scaled(gram.double(), alpha) for gram in grams)
            rhs = first @ weights[0].double().T + second @ weights[1].double().T
            merged, cut = exact(grams, weights, alpha)
            torch.testing.assert_close(merged, torch.linalg.solve(first + second, rhs).T, rtol=1e-9, atol=1e-9)
            self.assertEqual(cut, 0)

    def test_published_calls_agree_with_it_where_the_system_is_kind(self) -> None:
        grams, weights = case(400)
        merged, _ = exact(grams, weights, 0.5)
        for solver in ("gels", "gelsy", "inverse"):
            found = systems.published(solver, grams, [weights, weights], 0.5)
            self.assertEqual(len(found), 2)
            for weight in found:
                torch.testing.assert_close(weight.double(), merged, rtol=1e-4, atol=1e-4)

    def test_without_full_rank_it_leaves_the_average_where_no_token_was(self) -> None:
        grams, weights = case(5)
        merged, cut = exact(grams, weights, 1.0)
        self.assertEqual(cut, WIDTH - 10)
        total = grams[0].double() + grams[1].double()
        root = total.diagonal().sqrt()
        values, vectors = torch.linalg.eigh(total / root[:, None] / root[None, :])
        change = (merged - (weights[0].double() + weights[1].double()) / 2) * root
        self.assertLess((change @ vectors[:, values < 1e-6]).norm().item(), 1e-9 * change.norm().item())

    def test_held_out_rows_are_in_no_gram(self) -> None:
        used, held_out = text.split([f"row {number}" for number in range(95)])
        self.assertEqual((len(used), len(held_out)), (86, 9))
        self.assertFalse(set(used) & set(held_out))


if __name__ == "__main__":
    unittest.main()
