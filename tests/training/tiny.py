"""A model of a few thousand parameters as a Hugging Face folder, so that a test can run the programs for real."""

from pathlib import Path

SETTINGS = {
    "common": {"max_prompt_tokens": 32, "max_completion_tokens": 8, "micro_batch_tokens": 512},
    "round": {"prompts": 6, "shown_prompts": 2, "comparison_size": 3, "guard_prompts": 0},
    "reward": {"batch_rankings": 4},
    "ppo": {"steps": 2, "batch_episodes": 8, "epochs": 1, "eval_prompts": 4, "save_every": 2},
}


def make_chat_model(folder: Path) -> Path:
    """A GPT-2 of the same size and tokenizer, with a chat template, that often ends a text within eight tokens."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, set_seed

    tokenizer = AutoTokenizer.from_pretrained(make_model(folder))
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenizer.save_pretrained(folder)
    set_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 192, "vocab_size": len(tokenizer)}
    ends = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(**sizes, **ends))
    with torch.no_grad():
        end = model.transformer.wte.weight[1]
        model.transformer.ln_f.bias.copy_(4 * end / end.square().sum())  # raises the logit of the EOS token by 4
    model.save_pretrained(folder)
    return folder


def make_model(folder: Path) -> Path:
    """A Llama of two thin layers with random weights, and a byte-level tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = {token: number for number, token in enumerate(["<pad>", "<end>", *letters])}
    bytewise = Tokenizer(models.BPE(vocab=tokens, merges=[]))
    bytewise.pre_tokenizer, bytewise.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytewise, eos_token="<end>", pad_token="<pad>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
