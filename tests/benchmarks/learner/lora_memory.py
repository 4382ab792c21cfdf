"""Peak memory of a ppo round with adapters on one base, against four whole models.

    python tests/benchmarks/learner/lora_memory.py [--json FILE] [--hidden 512] [--layers 8]

Both run the program itself, each in a process of its own, on the same random Llama and a reward model trained from it:
policy, reference, critic and reward model, one batch of 16 episodes, a prompt of 16 tokens and completions of 32. What
is told is the highest memory in use less what was in use before the first model was loaded: the process's resident
memory, or what PyTorch allocated on the GPU if there is one. Writes a list of one object, `lora_memory`, to FILE.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
WORDS = [f"w{number}" for number in range(2000)]
RANK = 8


def main() -> None:
    options = parse()
    if options.job:
        print(json.dumps(peak_of_job(Path(options.job))))
        return
    with tempfile.TemporaryDirectory() as name:
        row = compare(Path(name), options.hidden, options.layers)
    print(f"{row['name']}: {row['ours']:.0f} {row['unit']} against {row['peer']:.0f}, ratio {row['ratio']:.2f}")
    if options.json:
        Path(options.json).write_text(json.dumps([row], indent=2))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", default="")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--job", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(folder: Path, hidden: int, layers: int) -> dict[str, Any]:
    """The benchmark's row; `quality_…` are the rewards of the rounds' one batch, which both draw from one policy."""
    size = make_policy(folder / "policy", hidden, layers)
    found = {}
    for name, rank in (("whole", 0), ("adapters", RANK)):
        make_reward_model(folder, folder / f"reward-{name}", rank)
        found[name] = in_own_process(make_job(folder, folder / f"ppo-{name}", rank, folder / f"reward-{name}/model"))
    ours, peer = found["adapters"], found["whole"]
    return {
        "name": f"lora_memory@{size / 1e6:.0f}M",
        "ours": ours["peak"] / 2**20,
        "peer": peer["peak"] / 2**20,
        "unit": "MiB",
        "ratio": ours["peak"] / peer["peak"],
        "quality_ours": ours["reward"],
        "quality_peer": peer["reward"],
    }


def make_policy(folder: Path, hidden: int, layers: int) -> int:
    """A random Llama that knows two thousand words; the number of its parameters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<end>", *WORDS])}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", chat_template=template)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(WORDS) + 1, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=8, eos_token_id=0, bos_token_id=0, max_position_embeddings=128,
    ))  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def make_reward_model(folder: Path, job: Path, rank: int) -> None:
    """A reward model from one ranking, by the program itself."""
    row = {"ranking_id": 1, "prompt_id": 1, "split": "train", "messages": [{"role": "user", "content": "w1 w2"}],
           "completions": ["w3 w4", "w5"], "completion_ids": [1, 2], "ranks": [1, 2], "annotator": "a"}  # fmt: skip
    write_job(job, "rankings.jsonl", [row], {"model": str(folder / "policy"), "epochs": 1, "lora_rank": rank})
    subprocess.run([sys.executable, "-m", "training.learner.reward", str(job)], cwd=ROOT, check=True)


def make_job(folder: Path, job: Path, rank: int, reward_model: Path) -> Path:
    rows = [{"prompt_id": n, "messages": [{"role": "user", "content": " ".join(WORDS[n : n + 16])}]} for n in range(16)]
    settings = {"model": str(folder / "policy"), "reward_model": str(reward_model), "lora_rank": rank, "steps": 1,
                "batch_episodes": 16, "epochs": 1, "max_completion_tokens": 32, "eval_prompts": 0,
                "micro_batch_tokens": 256}  # fmt: skip
    return write_job(job, "prompts.jsonl", rows, settings)


def write_job(job: Path, name: str, rows: list[dict[str, Any]], settings: dict[str, Any]) -> Path:
    job.mkdir()
    (job / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (job / "config.json").write_text(json.dumps(settings))
    return job


def in_own_process(job: Path) -> dict[str, float]:
    """A high-water mark is of a process's whole life, so each has its own."""
    command = [sys.executable, str(Path(__file__)), "--job", str(job)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak_of_job(job: Path) -> dict[str, float]:
    """Bytes above what everything but models takes; and the batch's reward."""
    sys.path.insert(0, str(ROOT))
    import psutil
    import torch

    from training.learner import ppo

    before = psutil.Process().memory_info().rss
    ppo.main(job)
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before  # kilobytes on Linux
    return {"peak": float(peak), "reward": json.loads((job / "metrics.jsonl").read_text().splitlines()[-1])["reward"]}


if __name__ == "__main__":
    main()
