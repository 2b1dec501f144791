"""Captures the Gram matrices of a model that `transformers` loads, with forward hooks on every linear layer.

    python capture.py JOB.json

`mergelab` starts this file for `engine: transformers`; it also runs alone. Which token ids a model gets, and which of
them count, was decided before (`sequences.jsonl`, by mergelab-tensor); this program runs them through the model and
writes, in the layout of the native engine, `G = X^T X / n` of each linear layer's input X [n, in]:

    index.json          where each module's matrix lies, and which matrices of the checkpoint have none and why
    *.safetensors       the matrices, fp32, upper triangle in square tiles; one file a decoder layer
    layers.json         width, trace and the first tokens' share of it

Sequences of one length go through together, so nothing is padded. Modules that are given the very same tensor share a
matrix. Events (JSON Lines) are appended to the job's `events` file. Exit codes: 0 done, 1 failed, 3 the job is wrong.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import resource
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from report import Events, Refused, one_line

if TYPE_CHECKING:
    from layers import Checkpoint
    from record import Sequence

EXIT_FAILED, EXIT_EXPERIMENT = 1, 3


@dataclass(frozen=True)
class Job:
    """What is asked for. `exclude` are regular expressions on whole module names, `dtype` None is the checkpoint's."""

    events: str
    out: Path
    model: Path
    sequences: Path
    exclude: list[str]
    dtype: str | None
    device: str
    threads: int

    @classmethod
    def read(cls, path: str) -> Job:
        try:
            job = cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise Refused(f"{path} is no job of this program: {error}") from error
        paths = {name: Path(getattr(job, name)) for name in ("out", "model", "sequences")}
        return cls(**{**vars(job), **paths})


def load(job: Job, checkpoint: Checkpoint, dtype: str) -> Any:
    """The model as the class that its config names, on the CPU; refused unless every weight comes from the checkpoint."""
    import torch
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(job.model, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise Refused(f"{job.model}/config.json: transformers {transformers.__version__} cannot load it: {one_line(error)}") from error
    if getattr(config, "quantization_config", None) is not None:
        raise Refused(f"{job.model}/config.json: the weights are quantized; only float32, bfloat16 and float16 are read")
    if getattr(config, "is_encoder_decoder", False):
        raise Refused(f"{job.model}/config.json: {config.model_type} is an encoder with a decoder, and rows are one text each")
    # The default attention (sdpa) leaves the soft cap of Gemma 2's out.
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    found = (getattr(transformers, name, None) for name in config.architectures or [])
    loader = next((found for found in found if found is not None), transformers.AutoModel)
    model, info = loader.from_pretrained(
        job.model, dtype=getattr(torch, dtype), attn_implementation="eager" if capped else None,
        local_files_only=True, use_safetensors=True, output_loading_info=True,
    )  # fmt: skip
    wrong = sorted(map(str, {*info["missing_keys"], *info["mismatched_keys"]}))
    if wrong:
        raise Refused(f"{job.model}: {type(model).__name__} needs {wrong[0]}, which the checkpoint does not have so "
                      f"({len(wrong)} such weights)", "`architectures` in config.json must name the class that was saved")  # fmt: skip
    return model.eval()


def check(sequences: list[Sequence], model: Any) -> None:
    """Refuses what the model has no embedding or position for."""
    vocab = model.get_input_embeddings().weight.shape[0]
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf
    for sequence in sequences:
        if max(sequence.ids) >= vocab:
            raise Refused(f"row {sequence.row} has token id {max(sequence.ids)}, and the model has {vocab} embeddings",
                          "the tokenizer and the weights do not belong together")  # fmt: skip
        if len(sequence.ids) > positions:
            raise Refused(f"row {sequence.row} has {len(sequence.ids)} tokens, and the model was made for {positions} positions",
                          "set `max_length` of the gram")  # fmt: skip


def work(job: Job, events: Events) -> None:
    # Here and not above: what transformers reads of the environment is set, and a package that lacks is reported.
    import torch
    import transformers
    from gram import write
    from layers import Checkpoint, Layers
    from record import Recorder, Sequence, batches

    torch.set_num_threads(job.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if job.device == "auto" else job.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise Refused(f"device {job.device} is not there", "`settings: { device: auto }` takes a GPU where there is one", "stage")
    lines = job.sequences.read_text(encoding="utf-8").splitlines()
    sequences = [Sequence(**json.loads(line)) for line in lines]
    checkpoint = Checkpoint(job.model)
    dtype = job.dtype or checkpoint.dtype()
    model = load(job, checkpoint, dtype)
    check(sequences, model)
    layers = Layers.of(model, checkpoint, job.exclude)
    if not layers.modules:
        raise Refused("`exclude` leaves no module to keep a Gram matrix of", 'globs on module names, such as "*.down_proj"')
    model.to(device)
    recorder, done = Recorder(layers.modules, device, events), 0
    arguments = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    with torch.no_grad():
        for batch in batches(sequences, lambda: recorder.budget, device):
            recorder.run(model, batch, arguments, {})
            done += len(batch.sequences)
            events.send("progress", done=done, total=len(sequences), unit="sequences")
    figures = write(job.out, layers, recorder)
    if layers.without:
        few = "; ".join(f"{name} ({reason})" for name, reason in list(layers.without.items())[:3])
        events.note(f"{len(layers.without)} matrices of the checkpoint have no Gram: {few}{', …' if len(layers.without) > 3 else ''}")
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "transformers": transformers.__version__}
    events.send("facts", facts={
        "engine": "transformers", "family": model.config.model_type, "class": type(model).__name__, "forward_dtype": dtype,
        "gram_matrices": len(figures), "first_token_share_max": max((f["first_token_share"] for f in figures), default=0.0),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu", "versions": versions,
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    })  # fmt: skip


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print("usage: python capture.py JOB.json", file=sys.stderr)
        return 2
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    events = None
    try:
        job = Job.read(arguments[1])
        events = Events(job.events)
        work(job, events)
        return 0
    except Refused as error:
        message, hint, fault = str(error), error.hint, error.fault
    except ImportError as error:
        message, fault = f"a Python package is missing: {error}", "stage"
        hint = "`make setup` fills .venv, or name a Python that has it under [python] path in mergelab.toml"
    except Exception as error:
        traceback.print_exc()
        message, hint, fault = f"{type(error).__name__}: {one_line(error)}", None, "stage"
    if events is not None:
        events.send("error", message=message, hint=hint, fault=fault)
    print(f"error: {message}", file=sys.stderr)
    return EXIT_EXPERIMENT if fault == "experiment" else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv))
