"""Guards of a round: which are marked, how often by chance, and the promotion that asks for a confirmation."""

import json

import numpy as np
import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command

from feedback.errors import Conflict, Invalid
from feedback.models import Prompt
from tests.factories import client_of
from training import checkpoints, guard_texts, guards
from training.models import GuardText, Round
from training.rounds import lifecycle
from training.rounds.results import Outcome
from training.rounds.start import start_round
from training.run_round import jobs

URL = "/projects/support"


def figure(before, after, error=0.01, count=100):
    return {"before": before, "after": after, "difference": after - before, "error": error, "count": count}


FIGURES = {
    "nll": figure(2.0, 2.1),
    "bleu": figure(0.30, 0.28 + 1e-9),
    "rouge_l": figure(0.5, 0.4, error=None, count=29),
    "exact_match": figure(0.1, 0.9),
    "empty": figure(0.0, 0.05),
    "cut_off": figure(0.5, 0.1),
    "tokens": figure(10.0, 14.9, error=1.0),
}
DIVERGENCES = {"kl_from_base": 0.5, "kl_from_base_low": 0.4, "kl_from_base_high": 0.6, "kl_from_base_error": 0.05,
               "kl_from_root": 1.5, "prompts": 100}  # fmt: skip


@pytest.fixture
def measured(project, base, rankings, manager):
    """A finished round whose guards are those of FIGURES, with its checkpoint."""
    started = start_round(project, manager)
    claim = lifecycle.claim(started.pk, "gpu-1:1")
    lifecycle.store_result(claim, "guards", {"guards": FIGURES, **DIVERGENCES})
    lifecycle.finish(claim, Outcome(base.path, "", [], []))
    return Round.objects.get(pk=started.pk)


def test_a_guard_falls_if_it_is_worse_by_more_than_two_standard_errors(measured):
    falls = guards.fallen(measured.checkpoint)
    assert [fall.name for fall in falls] == ["nll", "empty"], "the others are better, within the error, or without one"
    nll = falls[0]
    assert (nll.before, nll.after, nll.error) == (2.0, 2.1, 0.01) and nll.difference == pytest.approx(0.1)
    assert nll.sentence == (
        "Guard texts (−log-likelihood, nats per token) got worse, from 2.000 to 2.100: "
        "by 0.100, with a standard error of 0.010."
    )
    assert guards.fallen(measured.base) == []


@pytest.mark.parametrize(("after", "falls"), [(14.9, False), (16.9, False), (17.1, True), (3.1, False), (2.9, True)])
def test_the_length_falls_if_it_changes_by_more_than_half_beyond_the_error(after, falls):
    round_ = Round(results={"guards": {"guards": {"tokens": figure(10.0, after, error=1.0)}}})
    assert bool(guards.fallen_in(round_)) == falls


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, None])
def test_a_guard_of_an_equal_checkpoint_is_marked_as_rarely_as_the_page_says(share):
    """5000 rounds whose base and checkpoint are equal. None: a mean instead of a share."""
    generator, rounds, prompts = np.random.default_rng(1), 5000, 200
    size = (2, rounds, prompts)
    values = generator.normal(size=size) if share is None else generator.random(size) < share
    differences = values[1].astype(float) - values[0]
    errors = differences.std(1, ddof=1) / prompts**0.5
    name = "nll" if share is None else "empty"
    guard = next(guard for guard in guards.GUARDS if guard.name == name)
    marked = [
        guards._is_fallen(guard, {"before": 0.0, "difference": float(mean), "error": float(error)})
        for mean, error in zip(differences.mean(1), errors, strict=True)
    ]
    assert np.mean(marked) == pytest.approx(guards.FALSE_ALARM_RATE, abs=0.006)


def test_the_sentence_names_the_number_of_guards_and_the_rate_of_false_alarms(measured):
    sentence = guards.false_alarm_sentence(guards.table_of(measured))
    assert "each of these 6 is marked in 2.3 % of rounds, and at least one of them in at most 14 %" in sentence
    assert "nothing is marked" in guards.false_alarm_sentence([])


@pytest.mark.slow
def test_a_promotion_of_a_worse_checkpoint_needs_a_confirmation(measured, manager, client):
    with pytest.raises(Conflict, match=r"worse than its base: Guard texts .* confirm the promotion"):
        checkpoints.promote(measured.checkpoint, manager)
    api, address = client_of(manager), f"/api/v1/projects/support/checkpoints/{measured.checkpoint.pk}"
    assert len(api.get(address).data["fallen_guards"]) == 2
    refused = api.post(f"{address}/promote", {}, format="json")
    assert refused.status_code == 409 and "Guard texts" in refused.data["message"]
    client.force_login(manager)
    for page in ("console/", "rounds/1/samples/"):
        text = client.get(f"{URL}/{page}").content.decode()
        assert 'name="confirmed" value="1"' in text and "with a standard error of 0.010" in text
    assert client.post(f"{URL}/checkpoints/{measured.checkpoint.pk}/promote/").status_code == 409
    assert checkpoints.served(measured.project) == measured.base
    assert api.post(f"{address}/promote", {"confirmed": True}, format="json").status_code == 200
    assert checkpoints.served(measured.project) == measured.checkpoint


@pytest.mark.slow
def test_the_pages_and_the_api_show_guards_and_divergences(measured, manager, client):
    client.force_login(manager)
    page = client.get(f"{URL}/rounds/1/").content.decode()
    for part in ('id="guards"', 'id="fallen"', "KL from the base", "0.500", "± 0.050", "KL from the imported model"):
        assert part in page, part
    own = client.get(f"{URL}/checkpoints/{measured.checkpoint.pk}/").content.decode()
    assert "Drift" in own and "± 0.050" in own and "with a standard error of 0.010" in own
    overview = client.get(f"{URL}/guards/").content.decode()
    assert "There are no guard texts yet" in overview and "1.500" in overview and "Guard texts</span>" in overview
    answer = client_of(manager).get("/api/v1/projects/support/rounds/1").data["guards"]
    assert [row["name"] for row in answer["guards"] if row["is_fallen"]] == ["nll", "empty"]
    assert [(row["name"], row["value"], row["error"]) for row in answer["divergences"]] == [
        ("kl_from_base", 0.5, 0.05), ("kl_from_root", 1.5, None),
    ]  # fmt: skip


def test_a_project_without_guards_has_an_empty_page(project, base, manager, client):
    client.force_login(manager)
    assert "No guards yet" in client.get(f"{URL}/guards/").content.decode()
    assert client.put(f"{URL}/guards/").status_code == 405


def test_texts_are_added_once_and_removed_on_the_page_and_by_api(project, manager, client):
    client.force_login(manager)
    lines = SimpleUploadedFile("texts.jsonl", b'{"text": "one"}\n\n{"text": "two"}\n{"text": "one"}\n')
    assert client.post(f"{URL}/guards/", {"file": lines}).status_code == 302
    api = client_of(manager)
    added = api.post("/api/v1/projects/support/guard-texts", {"texts": ["two", " three"]}, format="json")
    assert (added.status_code, added.data) == (201, {"new": 1, "known": 1})
    assert api.get("/api/v1/projects/support/guard-texts").data == {"texts": ["one", "two", " three"]}
    assert client.post(f"{URL}/guards/texts/remove/").status_code == 302 and not GuardText.objects.exists()
    assert api.delete("/api/v1/projects/support/guard-texts").data == {"removed": 0}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b'{"text": 1}', "a.jsonl, line 1: a line must be an object"),
        ("a.jsonl", b"\n[", "a.jsonl, line 2: a line must be an object"),
        ("a.txt", b"\xff", "a.txt is not UTF-8"),
        ("a.txt", b"a\0b", "NUL character"),
        ("a.txt", b" \n", "A guard text is empty"),
        ("a.jsonl", b"\n", "no text to add"),
        ("a.txt", b"x" * (GuardText.MAX_LENGTH + 1), "at most 100000 are allowed"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_whole(project, name, content, sentence):
    with pytest.raises(Invalid, match=sentence):
        guard_texts.add(
            project,
            ["good", *guard_texts.texts_in(name, content)][name == "a.jsonl" and b"text" not in content :],
            None,
        )
    assert not GuardText.objects.exists()


def test_a_folder_of_texts_is_imported_by_the_command(project, tmp_path, capsys):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.md").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "third"}))
    (tmp_path / "d.png").write_bytes(b"\xff")
    call_command("import_guard_texts", "support", str(tmp_path))
    assert "3 guard texts are new, 0 were there already." in capsys.readouterr().out
    assert list(GuardText.objects.order_by("pk").values_list("text", flat=True)) == ["first", "third", "second"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(CommandError, match="has no file of texts"):
        call_command("import_guard_texts", "support", str(tmp_path / "empty"))


@pytest.mark.slow
def test_guard_prompts_are_held_out_marked_ones_first_and_the_same_in_every_round(project, base, rankings, manager):
    Prompt.objects.update(split="held_out")
    training, marked, referenced = Prompt.objects.order_by("pk")[:3]
    Prompt.objects.filter(pk=training.pk).update(split="train", metadata={"guard": True})
    Prompt.objects.filter(pk=marked.pk).update(metadata={"guard": True})
    Prompt.objects.filter(pk=referenced.pk).update(references=["yes"])
    guard_texts.add(project, ["a text"], manager)
    chosen = []
    for _ in range(2):
        started = start_round(project, manager, {"round": {"guard_prompts": 5}})
        (job,) = (job for job in started.jobs if job.name == "guards")
        folder = jobs.fill(started, job)
        chosen.append([json.loads(line)["prompt_id"] for line in (folder / "prompts.jsonl").read_text().splitlines()])
        assert (folder / "guard_texts.jsonl").read_text() == '{"text": "a text"}\n'
        lifecycle.request_cancel(started)
    assert chosen[0] == chosen[1] and chosen[0][:2] == [marked.pk, referenced.pk]
    assert len(chosen[0]) == 5 and training.pk not in chosen[0]


def test_a_round_of_an_earlier_version_and_one_without_guard_prompts_have_no_guards(waiting):
    assert [job.name for job in waiting.jobs][-1] == "guards"
    stored = dict(waiting.settings)
    waiting.settings = {**stored, "round": {**stored["round"], "guard_prompts": 0}}
    assert "guards" not in [job.name for job in waiting.jobs]
    waiting.settings = {name: values for name, values in stored.items() if name != "guards"}
    assert "guards" not in [job.name for job in waiting.jobs]
