"""Models, token ids and tokenizer that both sides start from.

The token with id 17 is the word `t17`, so that token ids go through any tokenizer unchanged. Everything is made once
per folder from fixed seeds, with torch and transformers only, so that it runs in either side's environment.
"""

import os
import random
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)


class Shape(NamedTuple):
    """The shape of a model."""

    kind: type[PreTrainedConfig]
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int


SIZES = {
    "0.1M": Shape(LlamaConfig, 32, 128, 1, 4, 4, 2048),
    "1M": Shape(LlamaConfig, 128, 512, 2, 4, 4, 2048),
    "5M": Shape(LlamaConfig, 256, 1024, 4, 4, 4, 2048),
    "36M": Shape(LlamaConfig, 512, 2048, 8, 4, 4, 2048),
    "0.5B": Shape(Qwen2Config, 896, 4864, 24, 14, 2, 151_936),
    "1.5B": Shape(Qwen2Config, 1536, 8960, 28, 12, 2, 151_936),
}
VOCABULARY, PAD, END = 2048, 0, 1  # VOCABULARY: of the token ids in texts; larger models know more
GOOD, BAD = range(10, 410), range(410, 810)  # tokens that the planted reward counts
COMPLETION_LENGTH = 40  # tokens after which a completion ends, on average, by the first policy


def dtype() -> str:
    """Return the dtype of the computation on both sides; trained weights are float32."""
    return os.environ.get("BENCH_DTYPE", "float32")


def config(size: str, **changes: Any) -> PreTrainedConfig:
    shape = SIZES[size]
    return shape.kind(vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
                      num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
                      num_key_value_heads=shape.key_heads, max_position_embeddings=512, pad_token_id=PAD,
                      eos_token_id=END, bos_token_id=None, tie_word_embeddings=False, **changes)  # fmt: skip


def tokenizer(vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    words = {"<pad>": PAD, "<end>": END} | {f"t{i}": i for i in range(2, vocabulary)}
    counting = Tokenizer(models.WordLevel(words, unk_token="t2"))
    counting.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return PreTrainedTokenizerFast(tokenizer_object=counting, pad_token="<pad>", eos_token="<end>",
                                   padding_side="left", chat_template=template)  # fmt: skip


def tokenizer_of(folder: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer that `prepare` saved, which has every token of the folder's models."""
    return cast(PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(folder / "policy"))


def text(tokens: list[int]) -> str:
    return " ".join(f"t{token}" for token in tokens)


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    """Return prompts of 16 to 64 random tokens."""
    draw = random.Random(seed)
    return [[draw.randrange(1000, VOCABULARY) for _ in range(draw.randint(16, 64))] for _ in range(count)]


@torch.no_grad()
def policy(size: str) -> PreTrainedModel:
    """Make a policy that is nearly uniform over tokens except EOS, which a constant first coordinate favours.

    No layer writes to that coordinate. Otherwise deep layers would add random values larger than the constant, and
    completions would end at once or never.
    """
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(size))
    model.model.embed_tokens.weight[:, 0] = 0.2
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight[0] = 0
        layer.mlp.down_proj.weight[0] = 0
    states = model.model(torch.arange(2, 66)[None]).last_hidden_state[0, :, 0]
    others = torch.tensor(SIZES[size].vocabulary / COMPLETION_LENGTH).log()
    model.lm_head.weight[END] = 0
    model.lm_head.weight[END, 0] = others / states.mean()
    return model


@torch.no_grad()
def reward_model(size: str) -> PreTrainedModel:
    """Make a model that scores a text by its share of good tokens minus that of bad ones, by uniform attention."""
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(config(size, num_labels=1))
    embeddings, attention = model.model.embed_tokens.weight, model.model.layers[0].self_attn
    embeddings[:, :2] = 0
    embeddings[GOOD.start : GOOD.stop, 0], embeddings[BAD.start : BAD.stop, 0] = 0.2, -0.2
    attention.v_proj.weight[0] = 0
    attention.v_proj.weight[0, 0] = 1.0
    attention.o_proj.weight[1] = 0
    attention.o_proj.weight[1, 0] = 1.0
    model.score.weight.zero_()
    model.score.weight[0, 1] = 0.4  # scores deviate by about 1
    return model


def reader(size: str) -> PreTrainedModel:
    """Make a language model with the reward model's trunk: it distinguishes good and bad tokens without preference."""
    model = AutoModelForCausalLM.from_config(config(size))
    model.model.load_state_dict(reward_model(size).model.state_dict())
    return model


MODELS = {"policy": policy, "reward_model": reward_model, "reader": reader}


def prepare(folder: Path, size: str) -> Path:
    """Make one of each of MODELS in the folder unless it exists, and return the folder."""
    for name, make in MODELS.items():
        if not (folder / name / "config.json").exists():
            make(size).save_pretrained(folder / name)
            tokenizer(SIZES[size].vocabulary).save_pretrained(folder / name)
    return folder
