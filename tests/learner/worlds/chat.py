"""Small tokenizers with the chat templates, control tokens and vocabulary types of published models."""

import json
from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "Where is my parcel?",
    "On its way, since Monday.",
    "    return x\n",
    "def f(x):\n    return x",
    "  two blanks, then\ta tab",
    "I hate you",
    "Ça va? 你好 🙂",
    "Hi",
    "ok?",
    "\n\nlines\n",
]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else "
    "message['role'] %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)
LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' "
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.first %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + message['content'] + "
    "' [/INST]' }}{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
T5 = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def byte_level(special: list[str], ignore_merges: bool = False) -> Tokenizer:
    """Return a byte-level BPE as in GPT-2, Llama 3 and Qwen."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    return tokenizer


def sentence_piece(special: list[str], legacy: bool) -> Tokenizer:
    """Return a BPE with byte fallback and ▁ for spaces. legacy: a ▁ before every part, as in Llama 2 and Phi-3."""
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    replace = normalizers.Replace(" ", "▁")
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if legacy else replace
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    trained.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if legacy else steps)
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", *special, *bytes_], show_progress=False)
    trained.train_from_iterator([text.replace(" ", "▁") for text in TEXTS * 4 if text.isascii()], trainer)
    return without_bytes_as_special(trained)


def without_bytes_as_special(tokenizer: Tokenizer) -> Tokenizer:
    """Remove the byte tokens from the special tokens, where the trainer puts all tokens that it was given."""
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(state))


def unigram(special: list[str]) -> Tokenizer:
    """Return a unigram vocabulary as in T5; it matches "</s>" in a text like any other token."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    alphabet = sorted({letter for text in TEXTS for letter in text} | set("<|/>_abcdefghijklmnopqrstuvwxyz"))
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", *special], unk_token="<unk>", initial_alphabet=alphabet,
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    return tokenizer


def wrapped(backend: Tokenizer, template: str | None, **special: Any) -> Any:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, chat_template=template, clean_up_tokenization_spaces=False, **special
    )


def gemma() -> Any:
    backend = sentence_piece(["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], legacy=False)
    backend.add_tokens([AddedToken("\n", normalized=False), AddedToken("\n\n", normalized=False)])
    return wrapped(backend, GEMMA, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")


def phi3() -> Any:
    """Return a tokenizer whose turn tokens remove the spaces and line breaks after them (rstrip)."""
    backend = sentence_piece(["<s>", "</s>", "<|endoftext|>"], legacy=True)
    names = ("<|assistant|>", "<|user|>", "<|system|>", "<|end|>")
    backend.add_special_tokens([AddedToken(name, rstrip=True, normalized=False) for name in names])
    return wrapped(backend, PHI3, bos_token="<s>", eos_token="<|endoftext|>", unk_token="<unk>")


def chatml() -> Any:
    backend = byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    backend.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    return wrapped(backend, CHATML, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def plain_chatml() -> Any:
    """Return ChatML whose turn tokens are not special tokens, as in some fine-tunes."""
    backend = byte_level(["<|endoftext|>"])
    backend.add_tokens(["<|im_start|>", "<|im_end|>"])
    return wrapped(backend, CHATML, eos_token="<|endoftext|>")


def llama3() -> Any:
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    return wrapped(byte_level(names, ignore_merges=True), LLAMA3, bos_token=names[0], eos_token=names[1])


def llama2() -> Any:
    backend = sentence_piece(["<s>", "</s>"], legacy=True)
    return wrapped(backend, LLAMA2, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def t5_chat() -> Any:
    return wrapped(unigram(["<pad>", "</s>"]), T5, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def gpt2() -> Any:
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    return wrapped(byte_level(["<|endoftext|>"]), None, **names)


MAKERS: dict[str, Callable[[], Any]] = {
    maker.__name__: maker for maker in (gemma, phi3, chatml, plain_chatml, llama3, llama2, t5_chat, gpt2)
}
ENDS = {
    "gemma": "<end_of_turn>", "phi3": "<|end|>", "chatml": "<|im_end|>", "plain_chatml": "<|im_end|>",
    "llama3": "<|eot_id|>", "llama2": "</s>", "t5_chat": "</s>", "gpt2": "<|endoftext|>",
}  # fmt: skip
# The tokens that open an assistant's reply, for texts that contain them.
OPENERS = {
    "gemma": "<start_of_turn>model\n", "phi3": "<|assistant|>", "chatml": "<|im_start|>assistant\n",
    "plain_chatml": "<|im_start|>assistant\n", "llama3": "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "llama2": "<s>[INST] ", "t5_chat": "assistant: ", "gpt2": "Assistant:\n",
}  # fmt: skip
