"""A tiny policy, and rankings of random words by a hidden utility, for tests of reward models."""

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["thanks", "sorry", "never", "refund", "today", "parcel", "please", "wait",
         "happy", "help", "no", "maybe", "soon", "order", "contact", "bye"]  # fmt: skip
VALUES = {"thanks": 1.0, "help": 1.0, "happy": 1.0, "never": -1.0, "no": -1.0, "bye": -1.0}


def utility(text: str) -> float:
    """Return the hidden utility: the number of good words minus that of bad ones."""
    return sum(VALUES.get(word, 0.0) for word in text.split())


def words_tokenizer(pad_is_eos: bool = False) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE trained on the words."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        [" ".join(WORDS)] * 20,
        trainers.BpeTrainer(
            vocab_size=330, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    pad = "<eos>" if pad_is_eos else "<pad>"
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=pad, eos_token="<eos>", bos_token="<eos>")


def words_folder(folder: Path, pad_is_eos: bool = False) -> Path:
    """Save a small random Llama with its tokenizer."""
    torch.manual_seed(0)
    words = words_tokenizer(pad_is_eos)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id,
        bos_token_id=words.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def ranking_rows(prompts: int, completions: int = 4, held_out: int = 0, seed: int = 0) -> list[dict[str, Any]]:
    """Return noiseless rankings, one per prompt; the last `held_out` prompts are held out."""
    r = random.Random(seed)
    rows = []
    for number in range(prompts):
        texts = [" ".join(r.choices(WORDS, k=r.randint(3, 8))) for _ in range(completions)]
        values = sorted({utility(text) for text in texts}, reverse=True)
        rows.append({
            "ranking_id": number,
            "prompt_id": number,
            "split": "held_out" if number >= prompts - held_out else "train",
            "messages": [{"role": "user", "content": " ".join(r.choices(WORDS, k=r.randint(2, 5)))}],
            "completions": texts,
            "completion_ids": [number * completions + i for i in range(completions)],
            "ranks": [values.index(utility(text)) + 1 for text in texts],
            "annotator": f"a{number % 3}",
            "weight": 1.0,
            "strength": None,
        })  # fmt: skip
    return rows


def reward_job(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> Path:
    """Make a job directory for the reward program, with its policy beside it."""
    folder.mkdir(exist_ok=True)
    if not (folder.parent / "policy").exists():
        words_folder(folder.parent / "policy")
    config = {"model": str(folder.parent / "policy"), **settings}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "rankings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
