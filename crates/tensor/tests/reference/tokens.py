"""Tokenizers of the kinds that models come with, and the token ids that `transformers` gives rows.

    python tokens.py OUT

writes OUT/<name>/ (a model directory without weights: config, tokenizer, chat template), OUT/rows.jsonl, and OUT/cases.json:
a list of {model, rows, max_length, add_special_tokens, ids, mask}. `rows` is what the experiment says of a row, `ids` the
token ids of each row, and `mask`, where there is one, which tokens the assistant says (`tokens: assistant`).

Chat rows are rendered by `apply_chat_template` and tokenised by the tokenizer itself, so that truncation and special tokens
are its own; a mask is only taken without special tokens, since `transformers` knows no other.
"""

import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

ROWS = [
    {"system": "Be brief.", "question": "What is 2 + 2?", "answer": "It is 4, of course.", "more": "And 12345 x 10?"},
    {"system": "", "question": "Näme a cölour ☃ 日本語 🦀", "answer": "Blau, e\u0301 is é", "more": "ﬁn"},
    {"system": "Tabs\tand\nnewlines\r\n", "question": "  spaces  ", "answer": " leading and trailing ", "more": "\n\nx"},
    {"system": "<s>", "question": "a special token </s> inside<|user|>", "answer": "it's {\"json\": [1, 2]}", "more": "ok"},
    {"system": "x", "question": "Long " * 12, "answer": "the end of a long row that is cut at the maximum length", "more": "y"},
]

TEXT = {"text": "{{ question }}\n{{ answer }}"}
CHAT = {"messages": [
    {"role": "system", "content": "{{ system }}"},
    {"role": "user", "content": "{{ question }}"},
    {"role": "assistant", "content": "{{ answer }}"},
    {"role": "user", "content": "{{ more }}"},
    {"role": "assistant", "content": "{{ answer }}{{ more }}"},
]}

# Namespaces, loops, tojson, undefined tools and documents, and what the assistant says.
TEMPLATE = """{{- bos_token }}
{%- set ns = namespace(turns=0) %}
{%- if tools %}{{ tools | tojson }}{% endif %}{% if documents is not none and documents %}{{ documents }}{% endif %}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
<|user|>{{ {'system': message['content']} | tojson }}
    {%- elif message.role == 'assistant' %}
        {%- set ns.turns = ns.turns + 1 %}
<|assistant|>{% generation %}{{ message.content | trim }}{{ eos_token }}{% endgeneration %}
    {%- else %}
<|user|>{{ message.content }}
    {%- endif %}
{%- endfor %}
 {{ ns.turns }} {{ unk_token is defined }}
"""

CORPUS = [value for row in ROWS for value in row.values()] * 3 + ["the quick brown fox jumps over the lazy dog 12 345"] * 3

NAMED = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>"]
GPT_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(normalizer=None, splits=()) -> Tokenizer:
    """Byte-level BPE, as of GPT-2, Llama 3 and Qwen."""
    inner = Tokenizer(models.BPE())
    if normalizer is not None:
        inner.normalizer = normalizer
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not any("Split" in str(s) for s in splits))])
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    inner.add_special_tokens(NAMED)
    return inner


def byte_fallback() -> Tokenizer:
    """SentencePiece BPE with bytes for what is unknown, as of Llama 2 and Mistral."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator([text for text in CORPUS if text.isascii()],
                                trainers.BpeTrainer(vocab_size=160, show_progress=False))
    learned = json.loads(trained.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)),
              *(token for token, _ in sorted(learned["vocab"].items(), key=lambda item: item[1]))]
    if "▁" not in tokens:
        tokens.append("▁")
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    merges = [tuple(merge) if not isinstance(merge, str) else tuple(merge.split(" ")) for merge in learned["merges"]]
    inner = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    inner.add_special_tokens(NAMED)
    return inner


def with_post_processor(inner: Tokenizer, single: str) -> Tokenizer:
    tokens = [(token, inner.token_to_id(token)) for token in ("<s>", "</s>")]
    inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=tokens)
    return inner


def tokenizers() -> dict:
    """By name: the tokenizer, its configuration, and the model type."""
    fast = {"tokenizer_class": "PreTrainedTokenizerFast"}
    qwen = [pre_tokenizers.Split(Regex(GPT_PATTERN), behavior="isolated")]
    return {
        "plain": (byte_level(), fast, "llama"),
        "begin": (with_post_processor(byte_level(), "<s> $A"), fast, "llama"),
        "begin-end": (with_post_processor(byte_level(), "<s> $A </s>"), fast, "llama"),
        "left": (with_post_processor(byte_level(), "<s> $A"), {**fast, "truncation_side": "left"}, "llama"),
        "flags": (byte_level(), {**fast, "add_bos_token": True, "add_eos_token": True}, "llama"),
        "flags-off": (with_post_processor(byte_level(), "<s> $A </s>"), {**fast, "add_bos_token": False}, "llama"),
        "unlisted": (byte_level(), {**fast, "pad_token": "<pad>", "extra_special_tokens": ["<|tool|>", "brief"]}, "llama"),
        "digits": (byte_level(splits=[pre_tokenizers.Digits(individual_digits=True)]), {"tokenizer_class": "GPT2Tokenizer"}, "llama"),
        "qwen": (byte_level(normalizers.NFC(), qwen), {"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "add_bos_token": False}, "qwen2"),
        "fallback": (with_post_processor(byte_fallback(), "<s> $A"), fast, "llama"),
        "sentencepiece": (with_post_processor(byte_fallback(), "<s> $A"), {"tokenizer_class": "LlamaTokenizer", "legacy": False}, "llama"),
        "sentencepiece-legacy": (with_post_processor(byte_fallback(), "<s> $A"), {"tokenizer_class": "LlamaTokenizerFast", "legacy": True, "add_bos_token": True}, "llama"),
        "mistral": (with_post_processor(byte_fallback(), "<s> $A"), {"tokenizer_class": "LlamaTokenizer"}, "mistral"),
    }


def write(directory: Path, inner: Tokenizer, config: dict, model_type: str) -> None:
    directory.mkdir(parents=True)
    inner.save(str(directory / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    (directory / "chat_template.jinja").write_text(TEMPLATE)


def filled(text: str, row: dict) -> str:
    for column, value in row.items():
        text = text.replace("{{ " + column + " }}", value)
    return text


def cases(name: str, directory: Path) -> list:
    fast = AutoTokenizer.from_pretrained(directory)
    chats = [[{key: filled(text, row) for key, text in message.items()} for message in CHAT["messages"]] for row in ROWS]
    rendered = {"text": [filled(TEXT["text"], row) for row in ROWS],
                "messages": [fast.apply_chat_template(chat, tokenize=False) for chat in chats]}
    found = []
    for rows, texts in ((TEXT, rendered["text"]), (CHAT, rendered["messages"])):
        for add_special_tokens in (True, False):
            for max_length in (None, 7, 40):
                limits = {} if max_length is None else {"truncation": True, "max_length": max_length}
                ids = [fast(text, add_special_tokens=add_special_tokens, **limits).input_ids for text in texts]
                found.append({"model": name, "rows": rows, "max_length": max_length,
                              "add_special_tokens": add_special_tokens, "ids": ids})
    masked = [fast.apply_chat_template(chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
              for chat in chats]
    found.append({"model": name, "rows": CHAT, "max_length": None, "add_special_tokens": False,
                  "ids": [one["input_ids"] for one in masked], "mask": [one["assistant_masks"] for one in masked]})
    return found


if __name__ == "__main__":
    target = Path(sys.argv[1])
    (target / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS))
    every = []
    for model, (tokenizer, options, kind) in tokenizers().items():
        write(target / model, tokenizer, options, kind)
        every += cases(model, target / model)
    (target / "cases.json").write_text(json.dumps(every))
