"""Whole rounds of dialogues: sampled, ranked, learned from, with each kind of simulated user."""

import json

import pytest

from feedback import imports
from feedback.models import Completion
from tests.factories import FAST, client_of, random_model, rank
from tests.learner.worlds.endpoint import chat_endpoint
from tests.training.test_dialogue_rounds import DIALOGUES, SCRIPT, rows_of
from training import checkpoints
from training.learner.environments.dialogue import KEY
from training.models import Round
from training.rounds.start import start_round
from training.run_round import jobs, run_round

pytestmark = pytest.mark.slow


@pytest.mark.process
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("forked_programs")
def test_a_round_of_dpo_learns_from_dialogues_and_samples_new_ones(project, manager, annotator, tmp_path):
    """A dialogue that is longer than the model is among them."""
    folder = random_model(tmp_path / "model", max_position_embeddings=64)
    checkpoints.import_checkpoint(project, str(folder), "words", serve=True, verdict=FAST)
    long, short = (
        [{"role": ("assistant", "user")[place % 2], "content": word} for place, word in enumerate(words)]
        for words in ("abc" * 15, "abc")
    )
    rows = [
        {"prompt": f"{word} {more}", "completions": [{"turns": long if word == "a" else short}, "b", "c"]}
        for word in "abc"
        for more in "ab"
    ]
    imports.add_prompts(project, rows, compare=True)
    project.prompts.update(split="train")
    rank(project, annotator, 6)
    settings = {
        "round": {"recipe": "dpo", "prompts": 4, "shown_prompts": 1, "comparison_size": 2},
        "common": {"max_prompt_tokens": 16, "max_completion_tokens": 6, "micro_batch_tokens": 512},
        "dpo": {"batch_rankings": 3, "eval_prompts": 2},
        "sample": {"environment": SCRIPT},
    }
    answer = client_of(manager).post("/api/v1/projects/support/rounds", {"settings": settings}, format="json")
    assert answer.status_code == 201, answer.content
    run_round.run(Round.objects.get().pk)
    finished = Round.objects.get()
    assert finished.status == "finished", finished.error
    assert finished.results["policy"]["train_rankings"] == finished.ranking_count == 6
    assert finished.results["policy"]["truncated_completions"] == 2
    assert finished.results["snapshot"]["rankings"] == 6
    written = Completion.objects.filter(source=finished.checkpoint.source, turns__isnull=False)
    assert written and all(len(completion.turns) in (3, 5) for completion in written)


@pytest.mark.full
@pytest.mark.process
@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("forked_programs")
def test_a_round_plays_dialogues_and_the_next_one_learns_from_their_rankings(project, tmp_path, rankings, annotator):
    folder = random_model(tmp_path / "model", max_position_embeddings=64)
    checkpoints.import_checkpoint(project, str(folder), "words", serve=True, verdict=FAST)
    settings = {
        "common": {"max_prompt_tokens": 16, "max_completion_tokens": 6, "micro_batch_tokens": 512},
        "round": {"prompts": 6, "shown_prompts": 2, "comparison_size": 3},
        "reward": {"batch_rankings": 4},
        "ppo": {
            "steps": 2,
            "batch_episodes": 8,
            "epochs": 1,
            "eval_prompts": 2,
            "optimum_samples": 2,
            **DIALOGUES["ppo"],
        },
    }
    run_round.run(start_round(project, None, settings).pk)
    finished = Round.objects.get()
    assert finished.status == "finished", finished.error
    written = Completion.objects.filter(source=finished.checkpoint.source, turns__isnull=False)
    assert written
    for completion in written:  # a turn that was cut off ends a dialogue early
        assert len(completion.turns) in (3, 5)
        assert [turn["content"] for turn in completion.turns[1::2]] == ["b", "c"][: len(completion.turns) // 2]
    project.prompts.update(split="train")
    rank(project, annotator, 3)
    learning = start_round(project, None, settings)
    rows, _ = rows_of(learning, "reward", "rankings.jsonl")
    texts_of = {tuple(row["completions"]): row for row in rows if "turns" in row}
    assert texts_of
    run_round.run(learning.pk)
    assert Round.objects.get(pk=learning.pk).status == "finished"


@pytest.fixture
def play_a_round(project, tmp_path, rankings, forked_programs):
    """Return a function that plays a whole round with this user, and returns what the user said in its samples."""

    def play(**user):
        for name, serve in (("words", True), ("talker", False)):
            folder = random_model(tmp_path / name, max_position_embeddings=64)
            checkpoints.import_checkpoint(project, str(folder), name, serve=serve, verdict=FAST)
        settings = {
            "common": {"max_prompt_tokens": 16, "max_completion_tokens": 6, "micro_batch_tokens": 512},
            "round": {"prompts": 4, "shown_prompts": 0, "comparison_size": 3},
            "reward": {"batch_rankings": 4},
            "ppo": {"steps": 1, "batch_episodes": 4, "epochs": 1, "eval_prompts": 0, "optimum_samples": 2,
                    "environment": {"name": "dialogue", "turns": 2, "instruction": "", **user}},
        }  # fmt: skip
        run_round.run(start_round(project, None, settings).pk)
        finished = Round.objects.get()
        assert finished.status == "finished", finished.error
        written = Completion.objects.filter(source=finished.checkpoint.source, turns__isnull=False)
        return [completion.turns for completion in written]

    return play


@pytest.mark.full
@pytest.mark.process
@pytest.mark.django_db(transaction=True)
def test_a_checkpoint_of_the_project_is_the_user_of_a_whole_round(play_a_round):
    answers = {turns[1]["content"] for turns in play_a_round(user="checkpoint", model="talker")}
    assert len(answers) > 1  # the model's own words, not lines


@pytest.mark.full
@pytest.mark.process
@pytest.mark.django_db(transaction=True)
def test_the_endpoint_is_the_user_of_a_whole_round_and_alone_gets_its_key(play_a_round, settings, monkeypatch):
    monkeypatch.setenv(KEY, "sk-hidden")  # as `process.start` does; a fork has the environment of the test
    with chat_endpoint() as (url, asked, keys):
        settings.SIMULATED_USER_URL, settings.SIMULATED_USER_MODEL = url, "known"
        played = play_a_round(user="endpoint")
    assert played and all(turns[1]["content"] == turns[0]["content"] + "!" for turns in played)
    assert asked and set(keys) == {"Bearer sk-hidden"}
    finished = Round.objects.get()
    written = [file.read_bytes() for file in jobs.directory_of(finished).rglob("*") if file.is_file()]
    row = json.dumps([finished.settings, finished.results, finished.log_tail]).encode()
    assert written and not any(b"sk-hidden" in content for content in [*written, row])
