"""Models with chat templates learn, score, sample and serve the same text that people see."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

from tests.learner.worlds.chat import ENDS, MAKERS
from training.learner import ppo, reward, sample, sft
from training.learner.models.loading import load_policy
from training.learner.models.reward_model import load_reward_model, score_groups
from training.learner.preferences.ranking_data import read_rankings
from training.learner.reward_terms import Answer
from training.learner.rewards.reward_function import reward_function
from training.learner.runtime.config import PpoConfig, RewardConfig
from training.learner.runtime.jobdir import JobDirectory
from training.learner.runtime.processes import Processes
from training.learner.text.control_tokens import control_tokens
from training.learner.text.messages import decode_completion, encode_prompt

pytestmark = pytest.mark.slow

KINDS = ["gemma", "phi3", "plain_chatml"]
MESSAGES = [{"role": "user", "content": "Where is my parcel?"}]
TEXTS = ["On its way.", "\n  On its way.", "I hate you", "Hi<|end|><end_of_turn><|im_end|>ok?"]
# Embeddings of published models have more rows than their tokenizers have tokens.
SPARE_ROWS = 64


def policy_folder(folder, kind):
    torch.manual_seed(0)
    tokenizer = MAKERS[kind]()
    config = LlamaConfig(
        vocab_size=len(tokenizer) + SPARE_ROWS, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=256, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id, pad_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def job(folder, name, rows, **config):
    folder.mkdir()
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def ranking(ranks=(1, 2, 3, 4)):
    return {"prompt_id": 1, "split": "train", "messages": MESSAGES, "completions": TEXTS, "ranks": list(ranks)}


def trained(tmp_path, kind):
    policy = policy_folder(tmp_path / "policy", kind)
    reward.main(job(tmp_path / "reward", "rankings.jsonl", [ranking()] * 2, model=policy, learning_rate=0.01))
    return policy, str(tmp_path / "reward" / "model")


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_scores_in_ppo_as_in_training_on_its_ranking(tmp_path, kind):
    policy, reward_model = trained(tmp_path, kind)
    model, tokenizer = load_reward_model(reward_model)
    (comparison,) = read_rankings(tokenizer, [ranking()], RewardConfig(model=policy)).train
    in_training = score_groups(model, [comparison.group]).mean[list(comparison.rankings[0].places)]
    controls = control_tokens(tokenizer).all
    for completion in comparison.group.completions:
        assert [token for token in completion if token in controls] == [tokenizer.convert_tokens_to_ids(ENDS[kind])]

    settings = PpoConfig(model=policy, reward_model=reward_model, missing_eos_penalty=0.0)
    scorer = reward_function(settings, tokenizer)
    prompt = encode_prompt(tokenizer, MESSAGES, 512)
    stops = [*controls, len(tokenizer) + 5]
    for text, expected in zip(TEXTS, in_training, strict=True):
        written = next(c for c in comparison.group.completions if decode_completion(tokenizer, c) == text)[:-1]
        answers = [
            Answer({"messages": MESSAGES}, prompt, tokens, decode_completion(tokenizer, tokens), False)
            for tokens in [written, *([*written, stop] for stop in stops)]
        ]
        torch.testing.assert_close(scorer(answers), expected.expand(len(answers)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_text_has_no_control_tokens_and_is_decoded_as_sampled(tmp_path, kind):
    policy = policy_folder(tmp_path / "policy", kind)
    rows = [{"prompt_id": number, "messages": MESSAGES} for number in range(40)]
    folder = job(tmp_path / "samples", "prompts.jsonl", rows, model=policy, max_completion_tokens=40)
    sample.main(folder)
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    tokenizer = MAKERS[kind]()
    names = [tokenizer.convert_ids_to_tokens(number) for number in control_tokens(tokenizer).all]
    assert not any(name in row["text"] for name in names for row in samples)
    assert any(row["text"] != row["text"].strip() for row in samples)
    # a row of the embedding without a token, or a control token, ends a text that is not finished
    assert any(not row["ended"] and row["tokens"] < 40 for row in samples)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_policy_stops_at_the_end_of_turn_that_it_was_taught(tmp_path, kind):
    policy = policy_folder(tmp_path / "policy", kind)
    rows = [{"messages": MESSAGES, "completion": "On its way."}]
    sft.main(job(tmp_path / "sft", "demonstrations.jsonl", rows, model=policy, epochs=60, learning_rate=0.01))
    folder = tmp_path / "sft" / "model"
    tokenizer = MAKERS[kind]()
    end = tokenizer.convert_tokens_to_ids(ENDS[kind])
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [end, tokenizer.eos_token_id]
    prompt = encode_prompt(tokenizer, MESSAGES, 512)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    written = plain.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=60, pad_token_id=0)[
        0, len(prompt) :
    ]
    assert written[-1] == end and decode_completion(tokenizer, written.tolist()) == "On its way."


@pytest.mark.slow
@pytest.mark.parametrize("critic", ["separate", "reward_model"])
def test_ppo_gives_a_sampled_text_the_score_of_the_same_ranked_text(tmp_path, critic):
    policy, reward_model = trained(tmp_path, "phi3")
    rows = [{"prompt_id": 1, "messages": MESSAGES}]
    config = {"model": policy, "reward_model": reward_model, "critic": critic, "steps": 1, "batch_episodes": 16,
              "max_completion_tokens": 12, "eval_prompts": 0, "optimum_samples": 0, "epochs": 1}  # fmt: skip
    folder = job(tmp_path / "ppo", "prompts.jsonl", rows, **config)
    context = ppo.load_context(PpoConfig.from_json(config), Processes())
    prompts = ppo.load_prompts(context, JobDirectory(folder))
    episodes, answers = ppo.sample_episodes(context, context.policy, *ppo.prompts_of_step(prompts, 1, context.settings))
    scores = ppo.score_episodes(context, episodes, answers).scores
    model, tokenizer = load_reward_model(reward_model)
    texts = [answer.text for answer in answers]
    row = ranking(range(1, 17)) | {"completions": texts}
    (comparison,) = read_rankings(tokenizer, [row], RewardConfig(model=policy)).train
    ranked = score_groups(model, [comparison.group]).mean[list(comparison.rankings[0].places)]
    penalty = torch.tensor([0.0 if answer.finished else 1.0 for answer in answers])
    torch.testing.assert_close(scores, ranked - penalty, atol=1e-5, rtol=0)
    assert load_policy(policy)[0].generation_config.eos_token_id == [*_ends(tokenizer, "phi3")]


def _ends(tokenizer, kind):
    return tokenizer.convert_tokens_to_ids(ENDS[kind]), tokenizer.eos_token_id
