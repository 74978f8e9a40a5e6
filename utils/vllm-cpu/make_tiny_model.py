#!/usr/bin/env python3
"""Make a tiny Llama with random weights and its tokenizer: the real vLLM serves it, on any machine, offline.

    python make_tiny_model.py DIRECTORY

0.8 million parameters, 1.6 MB, one second. What it writes is always the same: all is drawn from fixed seeds.
It talks nonsense and hardly ever ends by itself: a request gets its `max_tokens`. Needs torch, tokenizers and
transformers, which vLLM brings.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SEED = 20260101
VOCABULARY = 4096
CONTEXT_TOKENS = 8192
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_ONSETS = (
    "b",
    "br",
    "ch",
    "cl",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "r",
    "s",
    "sh",
    "sk",
    "st",
    "t",
    "th",
    "tr",
    "v",
    "w",
)
_VOWELS = ("a", "ai", "e", "ea", "ee", "i", "io", "o", "oa", "oo", "ou", "u")
_CODAS = ["", "", "", "ck", "l", "ld", "m", "n", "nd", "ng", "nt", "r", "rd", "s", "st", "t", "x"]


def sentences(count: int) -> Iterator[str]:
    """Text to train a tokenizer on: invented words, the frequent ones short, digits, JSON."""
    rng = random.Random(SEED)
    words = ["".join(_syllable(rng) for _ in range(1 + rank // 1500)) for rank in range(6000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    for _ in range(count):
        chosen = rng.choices(words, weights, k=rng.randint(4, 20))
        yield " ".join(chosen).capitalize() + rng.choice(
            [".", ".", "?", "!", ":", f" {rng.randint(0, 9999)}."]
        )
        yield json.dumps(
            {rng.choice(words): rng.randint(0, 999), "name": chosen[0], "ok": rng.random() < 0.5}
        )


def _syllable(rng: random.Random) -> str:
    return rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)


def write_tokenizer(directory: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(4000), trainer)
    size = tokenizer.get_vocab_size()
    if size != VOCABULARY:
        raise SystemExit(f"the tokenizer has {size} tokens instead of {VOCABULARY}")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=CONTEXT_TOKENS,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(directory)


def write_model(directory: Path) -> int:
    """The number of parameters written."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
        dtype="bfloat16",
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2)
    model.save_pretrained(directory)
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    target = parser.parse_args().directory
    if (target / "config.json").exists():
        sys.stdout.write(f"{target} holds a model already\n")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Complete or absent: a job that starts meanwhile never sees half a model.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".tiny-") as folder:
        draft = Path(folder) / "model"
        write_tokenizer(draft)
        parameters = write_model(draft)
        for path in draft.iterdir():
            path.chmod(0o644)
        shutil.move(draft, target)
    sys.stdout.write(f"{target}: {parameters:,} parameters\n")


if __name__ == "__main__":
    main()
