"""What vLLM is told before it is imported, how its answers are drawn, and how it ends.

vLLM reads its settings from environment variables. They are set here, so that nobody has to know them; one that the user
has set wins.
"""

import hashlib
import itertools
import json
import os
from pathlib import Path

from .environment import version_of

GIB = 1 << 30
# Sequences of the model's full length that the cache of keys and values is to hold, where there is memory for them.
FULL_SEQUENCES = 64


def is_cpu_build():
    """Whether the vLLM that is installed computes on the CPU: its version says so."""
    return "cpu" in (version_of("vllm") or "")


def set_engine_environment(job):
    """The variables that vLLM reads."""
    # Nothing is reported to anyone.
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    # A forked copy of a process that has threads, or has touched the GPU, can hang.
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if is_cpu_build():
        os.environ.setdefault("VLLM_TARGET_DEVICE", "cpu")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(cache_gib(job["models"], available_memory())))
        # As many threads as the job says, on whichever core is free: other stages may run beside this one.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        # The engine in this process: it starts sooner, and which requests it takes together does not hang on when each
        # of them arrives, so that the same job gives the same bytes.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        if all(runs_eagerly(model) for model in job["models"]):
            # A few functions of vLLM's are compiled all the same, for which it would need a C++ compiler, and minutes.
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


def runs_eagerly(model):
    """Whether a model of the job is computed without being compiled, as on a CPU they are unless they say otherwise."""
    return {**model["model_args"], **model["speed_args"]}.get("enforce_eager", True)


def cache_gib(models, available):
    """GiB for keys and values, with so many bytes of memory to be had.

    Enough for [`FULL_SEQUENCES`] of the model that needs most, but no more than half of what the weights leave of the
    memory, and 1 at least: vLLM takes whole ones.
    """
    wanted = max((FULL_SEQUENCES * bytes_of_sequence(model) for model in models), default=0)
    weights = max((bytes_of_weights(model) for model in models), default=0)
    return max(1, min(-(-wanted // GIB), (available - weights) // 2 // GIB))


def bytes_of_sequence(model):
    """Bytes of the keys and values of one sequence of the longest that a model takes, at four bytes a number.

    0 where its configuration cannot be read, which loading it will say.
    """
    try:
        config = json.loads((Path(model["path"]) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    config = config.get("text_config", config)
    arguments = model["model_args"]
    heads = config.get("num_attention_heads") or 1
    width = config.get("head_dim") or (config.get("hidden_size") or 0) // heads
    length = arguments.get("max_length") or arguments.get("max_model_len") or config.get("max_position_embeddings") or 0
    layers = config.get("num_hidden_layers") or 0
    return 2 * layers * (config.get("num_key_value_heads") or heads) * width * int(length) * 4


def bytes_of_weights(model):
    return sum(file.stat().st_size for file in Path(model["path"]).glob("*.safetensors"))


def available_memory():
    """Bytes of main memory that programs can still have, by the kernel's own estimate."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def seed_sampling(lm, seed):
    """Gives every request of the next task that is sampled a seed of its own, made of the task's.

    Without it vLLM draws from one stream that goes on from task to task, and an answer would hang on what was asked
    before, on the batch size, and on whether a run was resumed.
    """
    count = itertools.count()
    ask = type(lm)._model_generate

    def seeded(requests, generate=False, sampling_params=None):
        for params in sampling_params or []:
            if params.temperature > 0 and params.seed is None:
                params.seed = mixed(seed, next(count))
        return ask(lm, requests, generate, sampling_params)

    lm._model_generate = seeded


def mixed(seed, index):
    """A seed below 2⁶³ made of two numbers, both in every bit: on a CPU torch looks at the lower 32 only."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:8]) >> 1


def shut_down(lm):
    """Ends the processes of a model's engine, if it has any."""
    engine = getattr(getattr(lm, "model", None), "llm_engine", None)
    core = getattr(engine, "engine_core", None)
    if core is not None:
        core.shutdown()
