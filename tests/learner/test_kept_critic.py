"""A critic that ppo keeps: what a later run starts from, and what is refused."""

import pytest
import torch
from safetensors.torch import load_file

from tests.learner.worlds.letters import KINDS, PROMPTS, on_reward_model, policy_folder, ppo_job, reward_model_folder
from training.learner import ppo
from training.learner.models.kept_critic import HEAD_FILE, save_critic
from training.learner.models.loading import load_critic
from training.learner.models.packing import Episodes
from training.learner.models.reward_model import load_reward_model, score
from training.learner.models.token_outputs import compute_token_outputs, critic_values
from training.learner.runtime.config import PpoConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.runtime.processes import Processes

pytestmark = pytest.mark.slow

RUN = {"steps": 2, "batch_episodes": 8, "epochs": 1, "learning_rate": 0.01}
EPISODES = Episodes([[1], [2, 3]], [[2, 3, 0], [4, 0]])


def context_of(job):
    return ppo.load_context(PpoConfig.from_json(JobDirectory(job).config()), Processes())


def values_of(context):
    """Return the critic's values of some episodes."""
    with torch.no_grad():
        if context.settings.critic == "shared":
            return compute_token_outputs(context.policy, context.critic, EPISODES).values
        return critic_values(context.critic, EPISODES)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The finished jobs of a separate critic, from a reward model, and of a shared one, by kind."""
    folder = tmp_path_factory.mktemp("kept")
    model = {"reward_model": str(reward_model_folder(folder / "reward_model")), "rewards": [{"name": "reward_model"}]}
    jobs = {kind: ppo_job(folder / kind, PROMPTS, critic=kind, keep_critic=True, **RUN, **model)
            for kind in ("separate", "shared")}  # fmt: skip
    for job in jobs.values():
        ppo.main(job)
    return jobs


def next_job(folder, job, **changes):
    """Return a job that starts from the policy and the critic of a finished one."""
    config = JobDirectory(job).config() | {"model": str(job / "model"), "critic_model": str(job / "critic")}
    return ppo_job(folder, PROMPTS, **config | changes)


@pytest.mark.parametrize("kind", ["separate", "shared"])
def test_a_run_starts_with_the_values_that_the_kept_critic_had_at_the_end(kept, kind, tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(ppo, "save_critic", lambda *args: ended.append(values_of(seen[0])) or save_critic(*args))
    seen, load = [], ppo.load_context
    monkeypatch.setattr(ppo, "load_context", lambda *args: seen.append(load(*args)) or seen[-1])
    job = ppo_job(tmp_path / "job", PROMPTS, **JobDirectory(kept[kind]).config() | {"model": str(kept[kind] / "model")})
    ppo.main(job)
    started = values_of(context_of(next_job(tmp_path / "next", job)))
    assert torch.equal(started, ended[0])
    new = values_of(context_of(next_job(tmp_path / "new", job, critic_model="")))
    assert float((started - new).abs().max()) > 1e-3  # it has learned something


def test_a_separate_critic_is_a_folder_whose_normalised_scores_are_its_values(kept):
    by_hand = load_critic(str(kept["separate"] / "critic"))
    model, _ = load_reward_model(str(kept["separate"] / "critic"))
    with torch.no_grad():
        values = critic_values(by_hand, Episodes([[1, 2]], [[3, 0]]))
    torch.testing.assert_close(values, score(model, [[1, 2], [1, 2, 3]]), atol=1e-6, rtol=0)
    assert float(by_hand.score.bias) != 0


def test_a_continued_run_ends_in_the_bits_of_one_that_loads_the_critic_by_hand(kept, tmp_path, monkeypatch):
    job = next_job(tmp_path / "continued", kept["separate"])
    ppo.main(job)
    by_hand = load_critic(str(kept["separate"] / "critic"))
    monkeypatch.setattr("training.learner.policy.context.load_critic", lambda path: by_hand)
    other = next_job(tmp_path / "by hand", kept["separate"], critic_model="")
    ppo.main(other)
    for folder in ("model", "critic"):
        ours, theirs = (load_file(one / folder / "model.safetensors") for one in (job, other))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert [JobDirectory(one).result()["critic_start"] for one in (job, other)] == ["critic_model", "new"]


def test_saving_does_not_change_the_critic(tmp_path):
    context = context_of(ppo_job(tmp_path / "job", PROMPTS))
    with torch.no_grad():
        context.critic.score.bias.fill_(0.3)
    before = {name: weight.clone() for name, weight in context.critic.state_dict().items()}
    (tmp_path / "critic").mkdir()
    save_critic(context.critic, context.tokenizer, tmp_path / "critic")
    after = context.critic.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert float(load_critic(str(tmp_path / "critic")).score.bias) == float(torch.tensor(0.3))


def test_nothing_is_kept_unless_it_is_asked_for(tmp_path):
    job = ppo_job(tmp_path / "job", PROMPTS, **RUN)
    ppo.main(job)
    assert not (job / "critic").exists() and JobDirectory(job).result()["critic_start"] == "new"


def test_a_head_for_a_trunk_of_another_width_is_refused(kept, tmp_path):
    policy_folder(tmp_path / "policy", **KINDS["gpt2"] | {"hidden_size": 16})
    job = ppo_job(tmp_path / "job", PROMPTS, critic="shared", critic_model=str(kept["shared"] / "critic"))
    with pytest.raises(BadInput, match="does not fit the policy: use one of the same width"):
        ppo.main(job)


@pytest.mark.parametrize("damage", ["absent", "of another kind", "no weights"])
def test_a_folder_without_a_head_is_refused(kept, tmp_path, damage):
    folder = kept["separate"] / "critic" if damage == "of another kind" else tmp_path / "critic"
    if damage == "no weights":
        folder.mkdir()
        (folder / HEAD_FILE).write_text("nothing")
    job = ppo_job(tmp_path / "job", PROMPTS, critic="shared", critic_model=str(folder))
    with pytest.raises(BadInput, match="is not the folder of a shared critic"):
        ppo.main(job)


def test_the_head_of_a_shared_critic_is_not_a_separate_critic(kept, tmp_path):
    with pytest.raises(BadInput, match="no tokenizer could be loaded from"):
        ppo.main(ppo_job(tmp_path / "job", PROMPTS, critic_model=str(kept["shared"] / "critic")))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"algorithm": "reinforce"}, "the algorithm reinforce has no critic"),
        ({"lora_rank": 2}, "adapters for this model only: set critic to shared"),
        ({"critic": "reward_model"}, "set critic to separate or shared to keep it"),
    ],
)
def test_a_critic_that_no_later_run_could_start_from_is_not_kept(tmp_path, changes, sentence):
    job = ppo_job(
        tmp_path / "job", PROMPTS, keep_critic=True, **on_reward_model(tmp_path) | {"critic": "separate"} | changes
    )
    with pytest.raises(BadInput, match=sentence):
        ppo.main(job)


def test_adapters_keep_the_head_of_a_shared_critic(tmp_path):
    job = ppo_job(tmp_path / "job", PROMPTS, lora_rank=2, critic="shared", keep_critic=True, **RUN)
    ppo.main(job)
    weights = load_file(job / "critic" / HEAD_FILE)
    started = context_of(next_job(tmp_path / "next", job)).critic.score
    assert torch.equal(started.weight, weights["weight"]) and float(started.weight.detach().abs().max()) > 0
