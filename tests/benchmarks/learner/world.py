"""What ours and the peer both start from: models of a size, token ids, a tokenizer that only counts.

A token is the word `t17` for the id 17, so that token ids go through any tokenizer unchanged. Everything is made from
fixed seeds, once, in a folder; torch and transformers only, so that either side's environment can run it.
"""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

SIZES = {"1M": (128, 2), "5M": (256, 4)}  # hidden size, layers
VOCABULARY, PAD, END = 2048, 0, 1
GOOD, BAD = range(10, 410), range(410, 810)  # tokens that the planted reward counts
COMPLETION_LENGTH = 40  # tokens after which a completion ends, on average, by the first policy


def config(size: str, **changes) -> LlamaConfig:
    hidden, layers = SIZES[size]
    return LlamaConfig(vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=4 * hidden,
                       num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=4,
                       max_position_embeddings=512, pad_token_id=PAD, eos_token_id=END, bos_token_id=None,
                       tie_word_embeddings=False, **changes)  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    words = {"<pad>": PAD, "<end>": END} | {f"t{i}": i for i in range(2, VOCABULARY)}
    counting = Tokenizer(models.WordLevel(words, unk_token="t2"))
    counting.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return PreTrainedTokenizerFast(tokenizer_object=counting, pad_token="<pad>", eos_token="<end>",
                                   padding_side="left", chat_template=template)  # fmt: skip


def text(tokens: list[int]) -> str:
    return " ".join(f"t{token}" for token in tokens)


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    """Ragged: 16 to 64 tokens."""
    draw = random.Random(seed)
    return [[draw.randrange(1000, VOCABULARY) for _ in range(draw.randint(16, 64))] for _ in range(count)]


@torch.no_grad()
def policy(size: str) -> LlamaForCausalLM:
    """Nearly uniform over tokens, but for the end token: the first coordinate is about constant, and speaks for it."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config(size))
    model.model.embed_tokens.weight[:, 0] = 0.2
    states = model.model(torch.arange(2, 66)[None]).last_hidden_state[0, :, 0]
    others = torch.tensor(VOCABULARY / COMPLETION_LENGTH).log()
    model.lm_head.weight[END] = 0
    model.lm_head.weight[END, 0] = others / states.mean()
    return model


@torch.no_grad()
def reward_model(size: str) -> LlamaForSequenceClassification:
    """Scores a text by its share of good tokens less that of bad ones, through one layer of even attention."""
    torch.manual_seed(1)
    model = LlamaForSequenceClassification(config(size, num_labels=1))
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


def prepare(folder: Path, size: str) -> Path:
    """The folder with `policy` and `reward_model`, made if it is not there."""
    for name, make in (("policy", policy), ("reward_model", reward_model)):
        if not (folder / name / "config.json").exists():
            make(size).save_pretrained(folder / name)
            tokenizer().save_pretrained(folder / name)
    return folder
