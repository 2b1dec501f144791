"""Tests of what vLLM is told, without vLLM. Run: make test"""

import json
import os
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from harness import engine
from harness.engine import GIB, cache_gib, seed_sampling, set_engine_environment

# Llama-3-8B: 8 heads of 128 for keys and values in 32 layers.
LLAMA_8B = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "max_position_embeddings": 8192,
}


class CacheTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name)

    def model(self, config=None, weights=0, **model_args):
        if config is not None:
            (self.path / "config.json").write_text(json.dumps(config))
        with open(self.path / "model.safetensors", "wb") as file:
            file.truncate(weights)
        return {"name": "m", "path": str(self.path), "model_args": model_args, "speed_args": {}}

    def test_a_full_sequence_of_llama_8b_takes_two_gib_in_fp32(self):
        self.assertEqual(engine.bytes_of_sequence(self.model(LLAMA_8B)), 2 * GIB)
        self.assertEqual(engine.bytes_of_sequence(self.model(LLAMA_8B, max_length=2048)), GIB // 2)
        self.assertEqual(engine.bytes_of_sequence(self.model({"text_config": {**LLAMA_8B, "head_dim": 256}})), 4 * GIB)

    def test_it_is_what_the_model_needs_within_half_of_the_memory_that_is_left(self):
        model = self.model(LLAMA_8B, weights=16 * GIB)
        self.assertEqual(cache_gib([model], 1000 * GIB), engine.FULL_SEQUENCES * 2)
        self.assertEqual(cache_gib([model], 64 * GIB), 24)
        # A model that does not fit is vLLM's to refuse.
        self.assertEqual(cache_gib([model], 8 * GIB), 1)

    def test_a_small_model_takes_the_least_that_vllm_can_be_told(self):
        self.assertEqual(cache_gib([self.model({**LLAMA_8B, "num_hidden_layers": 1, "hidden_size": 64})], 64 * GIB), 1)

    def test_a_model_that_is_not_there_is_left_to_be_found_by_loading_it(self):
        self.assertEqual(cache_gib([{"name": "m", "path": "/nowhere", "model_args": {}}], 64 * GIB), 1)


class EnvironmentTest(unittest.TestCase):
    def variables(self, version, before, **arguments):
        job = {"models": [{"name": "m", "path": "/nowhere", "model_args": arguments, "speed_args": {}}]}
        with mock.patch.dict(os.environ, before, clear=True), mock.patch.object(engine, "version_of", lambda _: version):
            set_engine_environment(job)
            return dict(os.environ)

    def test_a_cpu_build_is_told_so_and_a_gpu_build_is_not(self):
        on_cpu, on_gpu = (self.variables(version, {}) for version in ("0.24.0+cpu", "0.24.0"))
        self.assertEqual((on_cpu["VLLM_TARGET_DEVICE"], on_cpu["VLLM_CPU_KVCACHE_SPACE"]), ("cpu", "1"))
        self.assertFalse([name for name in on_gpu if "CPU" in name or name == "VLLM_TARGET_DEVICE"])
        for variables in (on_cpu, on_gpu):
            self.assertEqual((variables["VLLM_NO_USAGE_STATS"], variables["DO_NOT_TRACK"]), ("1", "1"))
            self.assertEqual(variables["VLLM_WORKER_MULTIPROC_METHOD"], "spawn")

    def test_what_the_user_has_set_wins(self):
        before = {"VLLM_CPU_KVCACHE_SPACE": "7", "VLLM_LOGGING_LEVEL": "INFO"}
        self.assertLessEqual(before.items(), self.variables("0.24.0+cpu", before).items())

    def test_nothing_is_compiled_on_a_cpu_unless_a_model_asks_for_it(self):
        self.assertEqual(self.variables("0.24.0+cpu", {})["TORCHDYNAMO_DISABLE"], "1")
        self.assertNotIn("TORCHDYNAMO_DISABLE", self.variables("0.24.0+cpu", {}, enforce_eager=False))
        self.assertNotIn("TORCHDYNAMO_DISABLE", self.variables("0.24.0", {}))


class SeedTest(unittest.TestCase):
    def seeds(self, seed, batches):
        """Seeds of the requests of a task, some of which are sampled, that are asked in batches."""

        class Model:
            def __init__(self):
                self.asked = []

            def _model_generate(self, requests, generate=False, sampling_params=None):
                self.asked += sampling_params or []

        lm = Model()
        seed_sampling(lm, seed)
        for temperatures in batches:
            params = [SimpleNamespace(temperature=temperature, seed=None) for temperature in temperatures]
            lm._model_generate(requests=temperatures, generate=True, sampling_params=params)
        lm._model_generate(requests=[1], generate=False)
        return [params.seed for params in lm.asked]

    def test_each_sampled_request_has_its_own_whatever_the_batch_size(self):
        whole = self.seeds(3, [[1.0, 0.5, 1.0]])
        self.assertEqual(len(set(whole)), 3)
        self.assertEqual(whole, self.seeds(3, [[1.0], [0.5, 1.0]]))
        self.assertFalse(set(whole) & set(self.seeds(4, [[1.0, 0.5, 1.0]])))

    def test_greedy_requests_have_none(self):
        self.assertEqual(self.seeds(3, [[0.0, 0.0]]), [None, None])


if __name__ == "__main__":
    unittest.main()
