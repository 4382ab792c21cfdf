"""sft: the learned model, weights of tokens, and refused input."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.learner.worlds.letters import letters_tokenizer, policy_folder, tiny_model
from tests.learner.worlds.spoken import DIALOGUE, LETTERS_PROMPT, TOKENS, spoken
from training.learner import sft
from training.learner.models.imitation import total_weight, weighted_loss
from training.learner.runtime import start
from training.learner.runtime.config import SftConfig
from training.learner.runtime.jobdir import BadInput, JobDirectory
from training.learner.sampling.sampler import SamplingParams, sample
from training.learner.sft import plan_steps, split
from training.learner.text.demonstrations import Example, as_demonstration, encode_demonstration
from training.learner.text.messages import encode_prompt

ARCHITECTURE = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                "num_attention_heads": 4}  # fmt: skip
ANSWERS = {"one": "yes, one", "two": "no, two", "three": "perhaps three"}


def job(folder, rows, **settings):
    folder.mkdir()
    (folder / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def rows():
    return [{"messages": [{"role": "user", "content": q}], "completion": a} for q, a in ANSWERS.items()]


@pytest.mark.slow
def test_a_small_model_learns_its_demonstrations_by_heart_from_nothing(tmp_path):
    folder = job(tmp_path / "job", rows() * 8, architecture=ARCHITECTURE, vocabulary_size=280, learning_rate=0.01,
                 epochs=30, batch_tokens=100, warmup_fraction=0.1)  # fmt: skip
    sft.main(folder)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", attn_implementation="accord_packed").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    ends = frozenset([tokenizer.eos_token_id])
    prompts = [encode_prompt(tokenizer, row["messages"], 50) for row in rows()]
    written = sample(model, prompts, range(3), SamplingParams(20, ends, temperature=0.0), batch=3)
    assert [tokenizer.decode(c.tokens, skip_special_tokens=True) for c in written] == list(ANSWERS.values())
    assert all(completion.finished for completion in written)
    result = JobDirectory(folder).result()
    assert result["loss"] < 0.05 and result["program"] == "sft" and result["demonstrations"] == 24


@pytest.mark.slow
def test_it_fine_tunes_a_given_model(tmp_path):
    tiny_model(vocabulary=5).save_pretrained(tmp_path / "start")
    letters_tokenizer().save_pretrained(tmp_path / "start")
    one = [{"messages": [{"role": "user", "content": "a b"}], "completion": "c d"}]
    folder = job(
        tmp_path / "job", one * 4, model=str(tmp_path / "start"), epochs=10, learning_rate=0.01, batch_tokens=12
    )
    sft.main(folder)
    losses = [line["loss"] for line in JobDirectory(folder).metrics()]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.slow
def test_a_demonstration_that_outgrows_the_model_s_positions_is_refused(tmp_path):
    tiny_model("gpt2", vocabulary=5).save_pretrained(tmp_path / "start")
    letters_tokenizer().save_pretrained(tmp_path / "start")
    long = [{"messages": [{"role": "user", "content": "a " * 120}], "completion": "b " * count} for count in (7, 8)]
    for name, row in zip(("fits", "does not"), long, strict=True):
        folder = job(tmp_path / name, [row], model=str(tmp_path / "start"))
        if name == "fits":
            sft.main(folder)
        else:
            with pytest.raises(BadInput, match="take up to 129 tokens, the model has room for 128"):
                sft.main(folder)


def test_the_loss_is_the_weighted_sum_over_completion_tokens():
    model = tiny_model()
    examples = [Example([5, 6, 7, 0], [0.0, 2.0, 2.0]), Example([8, 9, 0], [0.25, 0.5])]
    loss = float(weighted_loss(model, examples).detach())
    model.set_attn_implementation("eager")
    expected = 0.0
    for tokens, weights, *_ in examples:
        log_probs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        expected -= sum(w * float(log_probs[i, tokens[i + 1]]) for i, w in enumerate(weights))
    assert loss == pytest.approx(expected, rel=1e-5)
    assert total_weight(examples) == 4.75


def test_prompt_tokens_have_the_weight_of_the_settings():
    row = sft.Demonstration([{"role": "user", "content": "a b"}], spoken("c"), 2.0)
    for prompt_weight, weights in ((0.0, [0.0, 2.0, 2.0]), (0.25, [0.5, 2.0, 2.0])):
        settings = SftConfig(model="m", prompt_loss_weight=prompt_weight)
        example = encode_demonstration(letters_tokenizer(), row, settings, settings.prompt_loss_weight)
        assert example == Example([1, 2, 3, 0], weights)


@pytest.mark.slow
def test_all_turns_of_the_policy_in_a_dialogue_are_imitated_and_the_user_s_are_not(tmp_path):
    settings = SftConfig(model="m", prompt_loss_weight=0.25)
    row = as_demonstration({"messages": LETTERS_PROMPT, "turns": DIALOGUE, "weight": 2.0}, 1)
    for prompt_weight in (0.0, 0.25):
        example = encode_demonstration(letters_tokenizer(), row, settings, prompt_weight)
        weights = [2.0, 2.0, 2.0, 2 * prompt_weight, 2.0, 2.0]
        assert example == Example([1, *TOKENS], weights)
    cut = encode_demonstration(letters_tokenizer(), row, settings, positions=6)  # 1 + 3 + 1 + 2 tokens do not fit
    assert cut == Example([1, *TOKENS[:3]], [2.0, 2.0, 2.0], truncated_completion=True)

    folder = policy_folder(tmp_path / "start")
    run = job(tmp_path / "job", [{"messages": LETTERS_PROMPT, "turns": DIALOGUE}], model=str(folder))
    sft.main(run)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    log_probs = model(torch.tensor([[1, *TOKENS]])).logits[0].log_softmax(-1)
    expected = -sum(float(log_probs[place, TOKENS[place]].detach()) for place in (0, 1, 2, 4, 5)) / 5
    assert JobDirectory(run).metrics()[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_every_pass_takes_each_demonstration_once_in_steps_of_about_batch_tokens():
    settings = SftConfig(model="m", epochs=2, batch_tokens=10)
    plan = plan_steps([4, 5, 12, 3, 2], settings)
    taken = [index for step in plan for index in step]
    assert sorted(taken[:5]) == sorted(taken[5:]) == [0, 1, 2, 3, 4] and taken[:5] != taken[5:]
    assert all(len(step) == 1 or sum([4, 5, 12, 3, 2][i] for i in step) <= 10 for step in plan)


def test_all_demonstrations_of_a_prompt_are_in_the_same_split():
    rows = [
        sft.Demonstration([{"role": "user", "content": f"prompt {i % 50}"}], spoken(f"{i}"), 1.0) for i in range(200)
    ]
    held_out, training = split(rows, 0.3)
    assert len(held_out) + len(training) == 200 and 10 < len(held_out) < 110
    assert not {row.messages[0]["content"] for row in held_out} & {row.messages[0]["content"] for row in training}
    assert split(rows, 0.0) == ([], rows)


@pytest.mark.slow
def test_held_out_demonstrations_are_evaluated_not_learned(tmp_path):
    many = [{"messages": [{"role": "user", "content": str(i)}], "completion": "yes"} for i in range(40)]
    folder = job(tmp_path / "job", many, architecture=ARCHITECTURE, vocabulary_size=270, held_out_fraction=0.25,
                 epochs=2, batch_tokens=100, eval_every=2)  # fmt: skip
    sft.main(folder)
    lines, result = JobDirectory(folder).metrics(), JobDirectory(folder).result()
    assert [("held_out_loss" in line) for line in lines] == [
        line["step"] % 2 == 0 or line is lines[-1] for line in lines
    ]
    assert 20 < result["demonstrations"] < 40 and result["held_out_loss"] == lines[-1]["held_out_loss"]


@pytest.mark.slow
def test_truncated_rows_are_counted(tmp_path):
    tiny_model(vocabulary=5).save_pretrained(tmp_path / "start")
    letters_tokenizer().save_pretrained(tmp_path / "start")
    texts = [("a b c", "a"), ("a", "a b c d"), ("a b", ""), ("b c d", "b c d")]
    made = [{"messages": [{"role": "user", "content": q}], "completion": a} for q, a in texts]
    folder = job(tmp_path / "job", made, model=str(tmp_path / "start"), max_prompt_tokens=2, max_completion_tokens=2)
    sft.main(folder)
    result = JobDirectory(folder).result()
    assert (result["truncated_prompts"], result["truncated_completions"]) == (2, 2)
    empty = job(tmp_path / "empty", [{**made[0], "messages": [{"role": "user", "content": ""}]}],
                model=str(tmp_path / "start"))  # fmt: skip
    with pytest.raises(BadInput, match="has no tokens"):
        sft.main(empty)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, "row 1: completion must be a string"),
        ({"completion": "a"}, "row 1: messages must be a list"),
        ({"messages": [{"role": "user", "content": "a"}], "completion": "b", "weight": 0}, "weight must be a number"),
    ],
)
def test_an_invalid_demonstration_is_refused(tmp_path, row, sentence):
    folder = job(tmp_path / "job", [row], architecture=ARCHITECTURE)
    with pytest.raises(BadInput, match=sentence):
        sft.main(folder)


def test_no_demonstrations_and_impossible_models_are_refused(tmp_path):
    with pytest.raises(BadInput, match="has no rows"):
        sft.main(job(tmp_path / "empty", [], architecture=ARCHITECTURE))
    with pytest.raises(BadInput, match="architecture cannot be built"):
        sft.main(job(tmp_path / "odd", rows(), architecture={"model_type": "no-such-model"}))
    with pytest.raises(BadInput, match="no tokenizer could be loaded from"):
        sft.main(job(tmp_path / "none", rows(), model=str(tmp_path / "nowhere")))


def test_the_split_of_a_row_takes_precedence_over_the_fraction():
    written = [{**row, "split": split} for row, split in zip(rows(), ("train", "held_out", "train"), strict=True)]
    read = [as_demonstration(row, number) for number, row in enumerate(written, 1)]
    held_out, training = split(read, 0.99)
    assert ([row.number for row in held_out], [row.number for row in training]) == ([2], [1, 3])
    with pytest.raises(BadInput, match="no training demonstration is left"):
        split(held_out, 0.0)
    with pytest.raises(BadInput, match=r"row 1.*split must be train or held_out, not 'test'"):
        as_demonstration({**written[0], "split": "test"}, 1)


@pytest.mark.slow
def test_the_loss_before_training_is_measured_once(tmp_path, monkeypatch):
    tiny_model(vocabulary=5).save_pretrained(tmp_path / "start")
    letters_tokenizer().save_pretrained(tmp_path / "start")
    demonstrations = [{"messages": [{"role": "user", "content": "a b"}], "completion": "c d"}]
    written = [{**demonstrations[0], "split": "train"}] * 4 + [{**demonstrations[0], "split": "held_out"}]
    folder = job(tmp_path / "job", written, model=str(tmp_path / "start"), epochs=4, learning_rate=0.01,
                 batch_tokens=12, save_every=1)  # fmt: skip

    class Stop:
        reads = 0

        @property
        def received(self):
            Stop.reads += 1
            return Stop.reads == 2

    monkeypatch.setattr(start, "StopSignal", Stop)
    with pytest.raises(sft.Stopped):
        sft.main(folder)
    sft.main(folder)
    result = JobDirectory(folder).result()
    # The held-out row is the training row: before training its loss is that of the first step.
    assert result["held_out_loss_before"] == pytest.approx(JobDirectory(folder).metrics()[0]["loss"], rel=1e-5)
    assert result["held_out_loss"] < 0.5 * result["held_out_loss_before"]
    assert (result["demonstrations"], result["held_out_demonstrations"]) == (4, 1)
