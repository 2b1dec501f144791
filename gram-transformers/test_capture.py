"""Tests of capture.py on tiny random models, on the CPU. Run: make test"""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import capture
import gram
import record
import torch
import transformers
from layers import Checkpoint, Layers, alike
from report import Events
from safetensors.torch import load_file, save_file
from torch import nn

SEQUENCES = [
    {"row": 1, "ids": [1, 5, 9, 3], "counted": [[0, 4]]},
    {"row": 2, "ids": [2, 7], "counted": [[0, 2]]},
    {"row": 4, "ids": [8, 8, 2, 6], "counted": [[0, 4]]},
]
GPT2 = dict(n_embd=12, n_layer=2, n_head=2, vocab_size=20, n_positions=16)
BERT = dict(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20, vocab_size=20, max_position_embeddings=16)  # fmt: skip


def save(directory, model):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    return model.eval()


def gpt2(directory, kind=transformers.GPT2LMHeadModel):
    return save(directory, kind(transformers.GPT2Config(**GPT2)))


def full(directory, name):
    """A module's matrix from its tiles."""
    entry = json.loads((directory / "index.json").read_text())["modules"][name]
    tiles, width, tile = load_file(directory / entry["file"])[entry["tensor"]], entry["width"], entry["tile"]
    blocks = -(-width // tile)
    matrix, place = torch.zeros(blocks * tile, blocks * tile), iter(tiles)
    for i in range(blocks):
        for j in range(i, blocks):
            part = next(place)
            matrix[i * tile : (i + 1) * tile, j * tile : (j + 1) * tile] = part
            matrix[j * tile : (j + 1) * tile, i * tile : (i + 1) * tile] = part.T
    return matrix[:width, :width]


class CaptureTest(unittest.TestCase):
    def setUp(self):
        self.home = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.enterContext(contextlib.redirect_stderr(io.StringIO()))

    def run_job(self, sequences=SEQUENCES, out="out", **changes):
        """Runs the program on the model in `home/model`: exit code, events, directory of the result."""
        (self.home / out).mkdir()
        (self.home / "sequences.jsonl").write_text("".join(json.dumps(sequence) + "\n" for sequence in sequences))
        events = self.home / f"{out}.events"
        job = dict(events=str(events), out=str(self.home / out), model=str(self.home / "model"),
                   sequences=str(self.home / "sequences.jsonl"), exclude=[], dtype=None, device="cpu", threads=1)  # fmt: skip
        (self.home / "job.json").write_text(json.dumps({**job, **changes}))
        code = capture.main(["capture.py", str(self.home / "job.json")])
        return code, [json.loads(line) for line in events.read_text().splitlines()], self.home / out

    def index(self, out="out"):
        return json.loads((self.home / out / "index.json").read_text())

    def error(self, **changes):
        code, events, _ = self.run_job(**changes)
        self.assertEqual(events[-1]["event"], "error")
        return code, events[-1]["message"]

    def test_conv1d_weights_are_marked_transposed_and_shared_inputs_are_not_mixed(self):
        gpt2(self.home / "model")
        code, events, _ = self.run_job()
        self.assertEqual(code, 0, events)
        modules = self.index()["modules"]
        self.assertEqual(len(modules), 8)
        self.assertTrue(all(entry["transposed"] and entry["n"] == 10 for entry in modules.values()))
        self.assertEqual(modules["transformer.h.1.mlp.c_fc"]["file"], "layer-00001.safetensors")
        self.assertEqual(len({(entry["file"], entry["tensor"]) for entry in modules.values()}), 8)
        self.assertEqual(self.index()["without"], {})
        facts = [event["facts"] for event in events if event["event"] == "facts"][-1]
        self.assertEqual((facts["engine"], facts["family"], facts["class"]), ("transformers", "gpt2", "GPT2LMHeadModel"))

    def test_names_are_those_of_the_checkpoint_whatever_prefix_the_class_has(self):
        gpt2(self.home / "model", transformers.GPT2Model)
        self.assertEqual(self.run_job(out="bare")[0], 0)
        config = json.loads((self.home / "model/config.json").read_text())
        (self.home / "model/config.json").write_text(json.dumps({**config, "architectures": ["GPT2LMHeadModel"]}))
        self.assertEqual(self.run_job(out="with-head")[0], 0)
        self.assertIn("h.0.attn.c_attn", self.index("bare")["modules"])
        self.assertEqual(list(self.index("with-head")["modules"]), list(self.index("bare")["modules"]))

    def test_a_weight_that_is_not_stored_as_it_is_loaded_is_refused_by_name(self):
        model = gpt2(self.home / "model")
        with torch.no_grad():
            model.transformer.h[1].mlp.c_fc.weight.add_(1)
        with self.assertRaisesRegex(capture.Refused, r"the weight of transformer\.h\.1\.mlp\.c_fc is not stored"):
            Layers.of(model, Checkpoint(self.home / "model"), [])

    def test_the_name_that_ends_most_alike_goes_first(self):
        self.assertEqual(alike("a.0.q.weight", "b.a.0.q.weight"), 4)
        self.assertEqual(alike("a.0.q.weight", "a.1.q.weight"), 2)
        self.assertEqual(alike("a", "b"), 0)

    def test_weights_that_the_checkpoint_lacks_are_not_made_up(self):
        save(self.home / "model", transformers.BertModel(transformers.BertConfig(**BERT)))
        config = json.loads((self.home / "model/config.json").read_text())
        (self.home / "model/config.json").write_text(json.dumps({**config, "architectures": ["BertForMaskedLM"]}))
        code, message = self.error()
        self.assertEqual(code, 3)
        self.assertIn("BertForMaskedLM needs cls.predictions", message)

    def test_matrices_that_no_linear_module_has_are_listed_and_embeddings_are_not(self):
        gpt2(self.home / "model")
        path = self.home / "model/model.safetensors"
        tensors = load_file(path)
        save_file({**tensors, "extra.experts": torch.ones(2, 3, 4), "gate": torch.ones(1, 4)}, path, {"format": "pt"})
        self.assertEqual(self.run_job()[0], 0)
        self.assertEqual(self.index()["without"], {"extra.experts": "it is no linear module of GPT2LMHeadModel"})

    def test_excluded_modules_have_no_gram_and_are_listed(self):
        gpt2(self.home / "model")
        _, events, out = self.run_job(exclude=[r".*\.mlp\..*", r"transformer\.h\.1\..*"])
        self.assertEqual(list(self.index()["modules"]), [f"transformer.h.0.attn.{part}" for part in ("c_attn", "c_proj")])
        self.assertEqual(len(self.index()["without"]), 6)
        self.assertEqual(set(self.index()["without"].values()), {"it is under `exclude`"})
        self.assertFalse((out / "layer-00001.safetensors").exists())
        self.assertTrue(any("6 matrices of the checkpoint have no Gram" in event.get("message", "") for event in events))
        code, message = self.error(out="none", exclude=[".*"])
        self.assertEqual((code, message), (3, "`exclude` leaves no module to keep a Gram matrix of"))

    def test_a_pooler_counts_one_token_a_sequence_where_the_first_counts(self):
        save(self.home / "model", transformers.BertModel(transformers.BertConfig(**BERT)))
        sequences = [*SEQUENCES[:2], {**SEQUENCES[2], "counted": [[1, 3]]}]
        self.assertEqual(self.run_job(sequences)[0], 0)
        modules = self.index()["modules"]
        self.assertEqual((modules["pooler.dense"]["n"], modules["encoder.layer.0.output.dense"]["n"]), (2, 8))
        self.run_job([{**sequence, "counted": [[1, 2]]} for sequence in SEQUENCES], out="none")
        self.assertIn("pooler.dense.weight", self.index("none")["without"])

    def test_the_same_job_gives_the_same_bytes(self):
        gpt2(self.home / "model")
        outs = [self.run_job(out=name)[2] for name in ("one", "two")]
        files = [{path.name: path.read_bytes() for path in out.iterdir()} for out in outs]
        self.assertEqual(len(files[0]), 4)
        self.assertEqual(files[0], files[1])

    def test_a_batch_that_does_not_fit_goes_in_halves_and_counts_once(self):
        gpt2(self.home / "model")
        sequences = [{"row": row, "ids": [row, row + 1, 3], "counted": [[0, 3]]} for row in range(1, 8)]
        self.assertEqual(self.run_job(sequences, out="whole")[0], 0)
        add = gram.Gram.add

        def full_memory(self, x, first, done):
            """Fails on more than two sequences in the widest matrix: after some of the batch is added already."""
            if len(x) > 6 and self.width == 48:
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield from add(self, x, first, done)

        with mock.patch.object(gram.Gram, "add", full_memory), mock.patch.object(gram, "WIDEST", 5):
            code, events, _ = self.run_job(sequences, out="halves")
        self.assertEqual(code, 0)
        self.assertTrue(any("out of memory with 21 tokens at once" in event.get("message", "") for event in events))
        for name, entry in self.index("whole")["modules"].items():
            self.assertEqual(self.index("halves")["modules"][name]["n"], entry["n"])
            torch.testing.assert_close(full(self.home / "halves", name), full(self.home / "whole", name), rtol=1e-5, atol=1e-6)
        figures = [json.loads((self.home / out / "layers.json").read_text())["inputs"] for out in ("whole", "halves")]
        for one, other in zip(*figures, strict=True):
            self.assertAlmostEqual(one["first_token_share"], other["first_token_share"], places=5)

    def test_one_sequence_that_does_not_fit_is_named(self):
        gpt2(self.home / "model")
        with mock.patch.object(gram.Gram, "add", side_effect=torch.OutOfMemoryError("CUDA out of memory")):
            code, message = self.error()
        self.assertEqual(code, 1)
        self.assertIn("one sequence (row 2, 2 tokens)", message)

    def test_activations_that_are_not_finite_are_named_by_module_and_row(self):
        model = gpt2(self.home / "model")
        with torch.no_grad():
            model.transformer.wte.weight[6] = torch.inf  # Only row 4 has this token.
        model.save_pretrained(self.home / "model")
        code, message = self.error()
        self.assertEqual(code, 3)
        self.assertEqual(message, "transformer.h.0.attn.c_attn: the activations of row 4 of the data are not finite")

    def test_rows_that_the_model_has_no_embedding_or_position_for_are_refused(self):
        gpt2(self.home / "model")
        code, message = self.error(sequences=[{"row": 3, "ids": [1, 20], "counted": [[0, 2]]}])
        self.assertEqual((code, message), (3, "row 3 has token id 20, and the model has 20 embeddings"))
        code, message = self.error(sequences=[{"row": 5, "ids": [1] * 17, "counted": [[0, 17]]}], out="long")
        self.assertEqual((code, message), (3, "row 5 has 17 tokens, and the model was made for 16 positions"))

    def test_a_family_that_transformers_does_not_know_is_refused(self):
        gpt2(self.home / "model")
        (self.home / "model/config.json").write_text('{"model_type": "unheard-of"}')
        code, message = self.error()
        self.assertEqual(code, 3)
        self.assertIn("unheard-of", message)


class RecorderTest(unittest.TestCase):
    def setUp(self):
        self.home = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.modules = {name: nn.Linear(3, 3) for name in ("a", "b", "c")}
        events = Events(str(self.home / "events"))
        self.recorder = record.Recorder(self.modules, torch.device("cpu"), events)

    def forward(self, run):
        self.recorder.batch = record.Batch([record.Sequence(1, [1, 2], [[0, 1]])], torch.device("cpu"))
        self.recorder.done, self.recorder.calls, self.recorder.live = {}, {}, {}
        with torch.no_grad():
            run(torch.randn(1, 2, 3))

    def test_modules_share_only_what_is_the_very_same_tensor(self):
        a, b, c = self.modules.values()
        self.forward(lambda x: (a(x), b(x), c(x.clone())))
        self.assertEqual(self.recorder.leader, {"a": "a", "b": "a", "c": "c"})

    def test_a_tensor_changed_in_place_is_another_input(self):
        a, b, _ = self.modules.values()
        self.forward(lambda x: (a(x), x.mul_(2), b(x)))
        self.assertEqual(self.recorder.leader, {"a": "a", "b": "b"})

    def test_sharing_that_ends_is_an_error(self):
        a, b, _ = self.modules.values()
        self.forward(lambda x: (a(x), b(x)))
        with self.assertRaisesRegex(capture.Refused, "b read the input of a first and that of b later"):
            self.forward(lambda x: (a(x), b(x + 1)))

    def test_tokens_in_an_order_of_their_own_count_only_where_all_do(self):
        a, b, _ = self.modules.values()
        self.forward(lambda x: (a(x), b(torch.randn(5, 3))))
        self.assertEqual((self.recorder.grams["a"].tokens, self.recorder.unclear), (1, {"b"}))


if __name__ == "__main__":
    unittest.main()
