"""A dialogue that outgrows a model's positions is cut at a whole turn; no program fails because of it."""

import copy
import json

import pytest
import torch

from tests.learner.worlds.chat import chatml, phi3
from tests.learner.worlds.letters import letters_tokenizer, on_reward_model, policy_folder, ppo_job, reward_model_folder
from tests.learner.worlds.spoken import DIALOGUE, LETTERS_PROMPT, LONG, dialogue_ranking
from tests.learner.worlds.truncated import NOTHING, SCRIPT, cut_short
from training.learner import ppo, reward
from training.learner.models.loading import positions_of
from training.learner.models.packing import PromptGroup
from training.learner.models.reward_model import load_reward_model, score_groups
from training.learner.models.token_outputs import PolicyTrunkCritic, RewardTrunkCritic
from training.learner.policy import dialogues, rollout
from training.learner.policy.context import load_context
from training.learner.preferences.marks import BAD, GOOD, read_marks
from training.learner.preferences.ranking_data import read_rankings
from training.learner.preferences.ratings import keys_of
from training.learner.reward_terms import Answer
from training.learner.rewards.reward_function import reward_model_scorer
from training.learner.runtime.config import PpoConfig, RewardConfig, SampleConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.runtime.processes import Processes
from training.learner.text.messages import Prompt, encode_reply, encode_turns

MESSAGES = [{"role": "user", "content": "where is my parcel"}]
TURNS = [
    {"role": "assistant", "content": "which parcel"},
    {"role": "user", "content": "the new one"},
    {"role": "assistant", "content": "on its way"},
]
FEW = {"max_position_embeddings": 12}  # for a prompt of one token and four turns of LONG: 1 + 4·2 + 3 tokens


@pytest.mark.parametrize("make", [chatml, phi3])
def test_a_dialogue_ends_after_the_last_whole_turn_that_fits(make):
    tokenizer = make()
    whole = encode_turns(tokenizer, MESSAGES, TURNS)
    reply = encode_reply(tokenizer, MESSAGES, TURNS[1]["content"])
    first, last = whole.spans
    assert not whole.is_cut_off and whole.tokens[first[1] : last[0]] == reply and last[1] == len(whole.tokens)
    texts = [tokenizer.decode(whole.tokens[start : end - 1]).strip() for start, end in whole.spans]
    assert texts == [TURNS[0]["content"], TURNS[2]["content"]]
    assert encode_turns(tokenizer, MESSAGES, TURNS, None, len(whole.tokens)) == whole
    for most in (1, first[1], len(whole.tokens) - 1):  # the first turn is read like a text, however long it is
        assert encode_turns(tokenizer, MESSAGES, TURNS, None, most) == (whole.tokens[: first[1]], [first], True)
    # ... and a last turn that is cut off fits if its beginning does
    limits = last[1] - last[0] - 1, len(whole.tokens) - 1
    if first[1] <= limits[0]:
        assert encode_turns(tokenizer, MESSAGES, TURNS, *limits).tokens == whole.tokens[:-1]


def write_rows(job, file, rows):
    (job / file).write_text("".join(json.dumps(row) + "\n" for row in rows))


def long_job(folder, **settings):
    """Return a job for a model of few positions, with a dialogue that outgrows them in each file."""
    policy_folder(folder / "policy", **FEW)
    job = folder / "job"
    job.mkdir()
    other = [{"role": "user", "content": "d c d c d"}]
    rankings = [
        dialogue_ranking(LONG, "b"),
        dialogue_ranking("c", LONG, annotator="b"),
        dialogue_ranking("d", "a", prompt_id=2, messages=other),
        dialogue_ranking(LONG, "b", prompt_id=3, split="held_out", messages=[{"role": "user", "content": "b"}]),
    ]
    write_rows(job, "rankings.jsonl", rankings)
    rating = {"split": "train", "messages": LETTERS_PROMPT, "completion": "", "turns": LONG}
    write_rows(job, "ratings.jsonl", [{**rating, "ratings": {"honest": {"mean": 3}}}])
    write_rows(job, "samples.jsonl", [{"messages": LETTERS_PROMPT, "turns": LONG}])
    config = {"model": str(folder / "policy"), "max_prompt_tokens": 6, "max_completion_tokens": 4, **settings}
    (job / "config.json").write_text(json.dumps(config))
    return job, rankings


def test_a_reward_model_learns_from_dialogues_that_outgrow_its_positions(tmp_path):
    job, rankings = long_job(tmp_path, epochs=1, ensemble_heads=0)
    reward.main(job)
    result = JobDirectory(job).result()
    assert (result["truncated_completions"], result["train_rankings"]) == (3, 3)
    assert result["unranked_rated_completions"] == 0, "ratings and rankings must read the same tokens"

    # It scores such a dialogue as it read it in training: 1 + 4·2 + 3·1 tokens.
    model, tokenizer = load_reward_model(str(job / "model"))
    settings = RewardConfig.from_json(JobDirectory(job).config())
    first, *_ = read_rankings(tokenizer, rankings, settings, positions_of(str(tmp_path / "policy"))).train
    read = first.group.completions[first.rankings[0].places[0]]
    assert read == (2, 0, 3, 4, 0, 1, 2, 0, 3, 4, 0)
    answer = Answer({"messages": [*LETTERS_PROMPT, *LONG[:-1]]}, [], [], LONG[-1]["content"], True, LONG)
    scored = reward_model_scorer(SampleConfig(model="m", reward_model="r"), (model, tokenizer))([answer])
    expected = score_groups(model, [PromptGroup((1,), (read,))]).mean
    torch.testing.assert_close(scored, expected, atol=1e-5, rtol=0)


def test_the_contrast_uses_prompts_before_which_a_dialogue_fits():
    rows = [
        dialogue_ranking(LONG, "b"),
        dialogue_ranking("d", "a", prompt_id=2, messages=[{"role": "user", "content": "d c d c d"}]),
        dialogue_ranking("d", "b", prompt_id=3, messages=[{"role": "user", "content": "b"}]),
    ]
    settings = RewardConfig(model="m", max_completion_tokens=4, batch_rankings=3)
    comparisons = read_rankings(letters_tokenizer(), rows, settings, 12).train
    plan = reward.plan_steps(comparisons, settings, positions=12)
    partners = {item.comparison.prompt_id: item.other_prompt for step in plan for item in step}
    assert partners[1] == (2,) and partners[2] in ((1,), (2,)) and partners[3] in ((1,), (4, 3, 4, 3, 4))


def test_marks_after_the_end_of_what_is_read_are_left_out():
    text = "\n\n".join(f"{turn['role'].capitalize()}:\n{turn['content']}" for turn in LONG)
    spans = [{"completion": 0, "start": place, "end": place + 1, "mark": mark}
             for place, mark in ((len("Assistant:\n"), "good"), (len(text) - 1, "bad"))]  # fmt: skip
    row = dialogue_ranking(LONG, "b", completions=[text, "b"], spans=spans)
    settings = RewardConfig(model="m", max_completion_tokens=4, marks_weight=1.0)
    (comparison,) = read_rankings(letters_tokenizer(), [row], settings, 12).train
    ((key, weight),) = read_marks(letters_tokenizer(), [row], settings, 12).items()
    assert key in keys_of(comparison) and len(key[1]) == 11 and weight.shape == (10, 3)
    assert weight[:, GOOD].tolist() == [1.0] + [0.0] * 9 and not weight[:, BAD].any()


@pytest.mark.slow
def test_ppo_ends_dialogues_at_the_positions_and_goes_on(tmp_path):
    policy_folder(tmp_path / "policy", **FEW)
    job = ppo_job(tmp_path / "job", environment=SCRIPT, steps=2, batch_episodes=8, max_completion_tokens=2, **NOTHING)
    context = load_context(PpoConfig.from_json(JobDirectory(job).config()), Processes())
    prompts = [Prompt({"messages": LETTERS_PROMPT}, [1], False)] * 400
    episodes, answers = dialogues.sample_episodes(context, context.policy, prompts, range(400))
    assert max(episodes.lengths()) <= 12
    assert any(answer.finished and len(turns) < 5 for turns, answer in zip(episodes.turns, answers, strict=True)), (
        "no dialogue ended for lack of room"
    )
    ppo.main(job)
    assert JobDirectory(job).result()["steps"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("critic", ["separate", "shared", "reward_model"])
def test_a_dialogue_without_room_is_truncated_and_bootstraps_from_the_critic(tmp_path, critic):
    """The oracle is the recursion A_t = δ_t + γλ·A_{t+1} over one episode, with the critic's value in transformers."""
    context, episodes, answers = cut_short(tmp_path, critic)
    scored = rollout.score_episodes(context, episodes, answers)
    returns = rollout.gae_targets(scored, 0.0, context.settings).returns
    truncated = episodes.truncated()
    assert 8 < sum(truncated) < 64
    for i, row in enumerate(scored.values):
        final, score = 0.0, float(scored.scores[i])
        if truncated[i]:
            read = [*episodes.completions[i], *episodes.unanswered[i]]
            assert answers[i].finished and 1 + len(read) + 2 > 5  # the prompt has one token, a turn up to two
            final, score = value_after_tokens(context, [*episodes.prompts[i], *read]), 0.0
        value_after, carried, expected = final, 0.0, []
        for t in reversed(range(len(row))):
            reward = score if t == len(row) - 1 else 0.0
            carried = reward + 0.9 * value_after - float(row[t]) + 0.9 * 0.8 * carried
            value_after = float(row[t])
            expected.insert(0, carried + value_after)
        assert returns[i].tolist() == pytest.approx(expected, abs=1e-4)


def test_an_answer_that_the_models_have_no_room_for_is_not_read(tmp_path):
    context, episodes, answers = cut_short(tmp_path, "separate", positions=3)
    full = [length == 3 for length in episodes.lengths()]
    truncated = [tokens is not None for tokens in episodes.unanswered]
    assert any(a and b for a, b in zip(full, truncated, strict=True))
    assert all(not tokens for tokens, is_full in zip(episodes.unanswered, full, strict=True) if is_full)
    scored = rollout.score_episodes(context, episodes, answers)
    assert scored.final_values.isfinite().all() and scored.final_values.count_nonzero() == sum(episodes.truncated())


@torch.no_grad()
def value_after_tokens(context, tokens):
    """Return the critic's value of the state after tokens, from the pass of transformers."""
    critic = context.critic
    network = {PolicyTrunkCritic: context.policy, RewardTrunkCritic: getattr(critic, "trunk", None)}
    trunk = copy.deepcopy(network.get(type(critic), critic).base_model)
    trunk.set_attn_implementation("eager")
    states = trunk(torch.tensor([tokens])).last_hidden_state
    return float(critic.score(states[0, -1]))


def test_the_metrics_count_truncated_dialogues_apart_from_those_that_ended(tmp_path):
    policy_folder(tmp_path / "policy", max_position_embeddings=5)
    job = ppo_job(tmp_path / "job", environment=SCRIPT, steps=1, batch_episodes=64, max_completion_tokens=2, **NOTHING)
    ppo.main(job)
    (line,), result = JobDirectory(job).metrics(), JobDirectory(job).result()
    assert line["truncated_dialogues"] > 0 and result["truncated_dialogues"] == line["truncated_dialogues"]
    assert line["ended_fraction"] == 1 - (line["truncated_dialogues"] + line["cut_off_completions"]) / 64


def test_ppo_refuses_dialogues_of_which_none_can_come_to_its_end(tmp_path, monkeypatch):
    policy_folder(tmp_path / "policy", max_position_embeddings=4)  # for one turn, and no second one
    monkeypatch.setattr(dialogues, "sample_turns", lambda context, model, texts, numbers: [
        dialogues.Completion([2, 0], [-1.0, -1.0], True) for _ in texts
    ])  # fmt: skip
    settings = {"environment": SCRIPT, "steps": 1, "batch_episodes": 4, "max_completion_tokens": 2, **NOTHING}
    with pytest.raises(BadInput, match="none of the first 4 dialogues comes to its end"):
        ppo.main(ppo_job(tmp_path / "job", **settings))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["critic_model", "reward_model", "head", "reference_model"])
def test_a_model_that_cannot_read_the_dialogues_of_the_policy_is_refused_before_sampling(tmp_path, kind):
    """The policy has 128 positions; all five turns take 1 + 5·2 tokens, one turn takes 3."""
    few = {"max_position_embeddings": 8}
    settings = {"environment": SCRIPT, "steps": 1, "batch_episodes": 4, "max_completion_tokens": 2, **NOTHING}
    if kind in ("critic_model", "reference_model"):
        settings[kind] = str(policy_folder(tmp_path / "few", **few))
    else:
        reward_model_folder(tmp_path / "reward_model", **few)
        settings |= on_reward_model(tmp_path, **({"critic": "shared"} if kind == "reward_model" else {}))
    with pytest.raises(
        BadInput, match=r"take up to 1[16] tokens, the (critic|reward model|reference).* has room for 8"
    ):
        ppo.main(ppo_job(tmp_path / "job", **settings))
    alone = {key: value for key, value in settings.items() if key != "environment"}
    ppo.main(ppo_job(tmp_path / "single", **alone))


@pytest.mark.slow
def test_an_episode_ends_where_the_critic_has_no_room_for_one_more_turn(tmp_path):
    """All turns of the policy fit, but not with the user's answers in between."""
    policy_folder(tmp_path / "critic", max_position_embeddings=11)
    job = ppo_job(
        tmp_path / "job", environment=SCRIPT, critic_model=str(tmp_path / "critic"), steps=1, batch_episodes=8,
        max_completion_tokens=2, **NOTHING,
    )  # fmt: skip
    context = load_context(PpoConfig.from_json(JobDirectory(job).config()), Processes())
    tools = dialogues.EpisodeContext.of(context)
    episode = dialogues.Dialogue(tools, Prompt({"messages": LETTERS_PROMPT}, [1], False), 0)
    while not episode.is_over:
        episode.take(dialogues.Completion([2, 0], [0.0, 0.0], True))
    assert len(episode.tokens) == 9 and len(episode.turns) == 3  # a fourth turn would need 12
    ppo.main(job)


def test_a_model_without_a_limit_reads_dialogues_whole(tmp_path):
    assert positions_of(str(policy_folder(tmp_path / "policy", **FEW))) == 12
    data = read_rankings(letters_tokenizer(), [dialogue_ranking(LONG, DIALOGUE)], RewardConfig(model="m"))
    assert data.truncated_completions == 0 and max(map(len, data.train[0].group.completions)) == 23
