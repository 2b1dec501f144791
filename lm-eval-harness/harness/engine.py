"""What vLLM is told before it is imported, and how it is started and stopped.

vLLM reads its settings from environment variables. They are set here, so that nobody has to know them; one that the user
has set wins.
"""

import os
from pathlib import Path

from .environment import version_of

GIB = 1 << 30
# The most that the cache of keys and values takes of main memory by itself.
MOST_CACHE_GIB = 16


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
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(cache_gib(available_memory(), largest_model(job))))
        # Threads as many as the job says, on whichever core is free: other stages may run beside this one.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        # The engine in this process: it starts sooner, and which requests it takes together does not hang on when each
        # of them arrives, so that the same job gives the same bytes.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


def cache_gib(available, model):
    """GiB for keys and values: a quarter of what a model of so many bytes leaves of the memory, from 1 to 16.

    One sequence of the model's full length has to fit; 8,192 tokens of an 8B Llama take 1 GiB.
    """
    return max(1, min(MOST_CACHE_GIB, (available - model) // 4 // GIB))


def available_memory():
    """Bytes of main memory that programs can still have, by the kernel's own estimate."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def largest_model(job):
    """Bytes of the weights of the job's largest model."""
    return max(
        (sum(file.stat().st_size for file in Path(model["path"]).glob("*.safetensors")) for model in job["models"]),
        default=0,
    )


def shut_down(lm):
    """Ends the processes of a model's engine, if it has any."""
    engine = getattr(getattr(lm, "model", None), "llm_engine", None)
    core = getattr(engine, "engine_core", None)
    if core is not None:
        core.shutdown()
