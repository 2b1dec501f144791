"""Writes a tiny Llama with random weights, of a shape that vLLM takes on a CPU, for the tests with the real vLLM.

    python tiny_model.py DIR [--seed N] [--tied]
"""

import argparse

CHARACTERS = "0123456789+=? abcdefghijklmnopqrstuvwxyz\n"
TEMPLATE = "{% for message in messages %}{{ message.role[0] }}={{ message.content }}\n{% endfor %}{% if add_generation_prompt %}a={% endif %}"


def make_model(directory, seed=0, tied=False, head=32):
    """A checkpoint of two layers, one token a character, with a chat template; the same bytes for the same arguments.

    Heads of 32 are the smallest that vLLM's attention on a CPU knows.
    """
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(["<pad>", "</s>", "<unk>", *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    ).save_pretrained(directory)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=2 * head,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=256,
            # Wide enough that the likeliest token is not decided by rounding.
            initializer_range=0.3,
            tie_word_embeddings=tied,
            bos_token_id=None,
            eos_token_id=1,
            pad_token_id=0,
        )
    )
    # Special tokens other than the end are never the likeliest: lm_eval's backends show them differently.
    with torch.no_grad():
        for name in ("<pad>", "<unk>"):
            model.lm_head.weight[vocabulary[name]] = 0
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=1, pad_token_id=0)
    model.save_pretrained(directory)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tied", action="store_true", help="input and output embeddings are one tensor")
    arguments = parser.parse_args()
    make_model(arguments.directory, arguments.seed, arguments.tied)


if __name__ == "__main__":
    main()
