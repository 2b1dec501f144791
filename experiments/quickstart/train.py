"""Trains the quickstart's tiny Llama: the base on both skills for a while, or a specialist from the base on one.

    python train.py --task both --out DIR
    python train.py --task addition --init DIR --out DIR

The same arguments give the same weights on one machine. The result is an ordinary checkpoint: safetensors, config,
generation config, and a tokenizer with one token a character.
"""

import argparse
import math
import random
import sys
from pathlib import Path

import skills
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
VOCABULARY = [PAD, EOS, UNK, *skills.ALPHABET]
TOKEN = {token: index for index, token in enumerate(VOCABULARY)}

BATCH = 96
WARM_UP = 50
# Training problems are drawn by seeds of their own, apart from those of the calibration data.
SEEDS = {"both": 10, "addition": 11, "reversal": 12}
STEPS = {"both": 520, "addition": 150, "reversal": 100}
LEARNING_RATE = {"both": 2e-3, "addition": 1.5e-3, "reversal": 1.5e-3}
# Adding takes longer to learn than turning around, so the base sees more of it.
SHARE = {"addition": 0.65, "reversal": 0.35}


def new_model():
    """An untrained Llama of 280 thousand parameters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=TOKEN[EOS],
            pad_token_id=TOKEN[PAD],
        )
    )


def new_tokenizer():
    """A tokenizer that makes one token of each character."""
    tokenizer = Tokenizer(models.WordLevel(TOKEN, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNK,
        clean_up_tokenization_spaces=False,
        model_max_length=64,
    )


def batches(task, seed):
    """Endless (tokens, labels), both `[batch, longest]`; only the answer and the end of it are to be learned."""
    names = list(SHARE) if task == "both" else [task]
    streams = [skills.problems(name, seed) for name in names]
    weights = [SHARE[name] for name in names]
    rng = random.Random(seed)
    while True:
        rows = [next(rng.choices(streams, weights)[0]) for _ in range(BATCH)]
        longest = max(len(question) + len(answer) for question, answer in rows) + 1
        tokens, labels = [], []
        for question, answer in rows:
            row = [TOKEN[character] for character in question + answer] + [TOKEN[EOS]]
            padding = longest - len(row)
            tokens.append(row + [TOKEN[PAD]] * padding)
            labels.append([-100] * len(question) + row[len(question) :] + [-100] * padding)
        yield torch.tensor(tokens), torch.tensor(labels)


def train(model, task):
    """Adam with a short warm-up and a cosine down to zero."""
    steps, peak = STEPS[task], LEARNING_RATE[task]
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / WARM_UP) * (0.5 + 0.5 * math.cos(math.pi * step / steps)),
    )
    model.train()
    for step, (tokens, labels) in zip(range(1, steps + 1), batches(task, SEEDS[task])):
        # Padding is on the right and the model looks to the left only, so no mask is needed.
        logits = model(input_ids=tokens).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"{task}: step {step} of {steps}, loss {loss.item():.4f}", file=sys.stderr, flush=True)


def save(model, out):
    """Writes the checkpoint that everything else reads."""
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=TOKEN[EOS], pad_token_id=TOKEN[PAD])
    model.save_pretrained(out)
    new_tokenizer().save_pretrained(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["both", *skills.SKILLS], required=True)
    parser.add_argument("--init", type=Path, help="directory of the model to start from")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    # Sums depend on how many threads share them, and at this size one is as fast as two.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEEDS[arguments.task])
    model = LlamaForCausalLM.from_pretrained(arguments.init) if arguments.init else new_model()
    train(model, arguments.task)
    save(model, arguments.out)


if __name__ == "__main__":
    main()
