"""The console's first page: the next step, the first-time set-up, and the figures of the loop."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from feedback import imports
from feedback.actions import trials
from feedback.models import Project
from feedback.quality.trial_evidence import ALPHA, confidence_sequence
from tests.factories import membership, rank_by_position
from training import checkpoints
from training.home import figures
from training.home.next_step import Action, State, next_step, setup_steps, shows_setup
from training.models import Round
from training.rounds import lifecycle, results

PAGE = "/projects/support/console/"
READY = State(new_rankings=300, rankings=300, rounds=1)


@pytest.fixture
def client(manager, plain_static_files):
    client = Client()
    client.force_login(manager)
    return client


@pytest.fixture
def finished(waiting, claim, project):
    """The waiting round, finished: its checkpoint and its base have answered the first prompts."""
    pks = list(project.prompts.order_by("pk").values_list("pk", flat=True)[:5])
    samples = [{"prompt_id": pk, "text": f"new {n}", "sampling": {"round": 1}} for pk in pks for n in range(3)]
    baseline = [{"prompt_id": pk, "text": "old", "sampling": {"round": 1}} for pk in pks[:2]]
    lifecycle.finish(claim, results.Outcome("/models/new", "/models/reward", samples, baseline))
    return Round.objects.get(pk=waiting.pk)


@pytest.mark.parametrize(
    ("state", "action", "part"),
    [
        (State(models=0, served="", prompts=0), Action.IMPORT_MODEL, "no model yet"),
        (State(models=0, served="", prompts=0, may_import=False), Action.ADD_PROMPTS, "no prompts yet"),
        (State(models=0, served="", may_import=False), Action.NONE, "ask an administrator"),
        (State(models=0, served="", may_import=False, open_comparisons=4), Action.RANK, "ask an administrator"),
        (State(prompts=0), Action.ADD_PROMPTS, "no prompts yet"),
        (State(has_guidelines=False), Action.WRITE_GUIDELINES, "no guidelines yet"),
        (State(has_guidelines=False, rounds=2, can_sample=True), Action.WRITE_COMPLETIONS, "Nothing waits"),
        (State(members=1), Action.INVITE_PEOPLE, "only member"),
        (State(members=1, rankings=9, open_comparisons=3), Action.RANK, "waits for rankings"),
        (State(served="", checking="mine"), Action.SEE_MACHINES, "mine waits for its check"),
        (State(served=""), Action.SERVE_MODEL, "promote one"),
        (State(can_sample=True, refusal="Nothing to learn from."), Action.WRITE_COMPLETIONS, "Nothing waits"),
        (State(open_comparisons=3, new_rankings=299, rounds=1), Action.RANK, "there are 299 new ones, and about 300"),
        (replace(READY, open_comparisons=3), Action.START_ROUND, "300 new rankings"),
        (State(new_rankings=12, rankings=12), Action.START_ROUND, "12 new rankings"),
        (State(open_comparisons=3, new_rankings=12, wanted_rankings=10), Action.START_ROUND, "12 new rankings"),
        (State(needs_rankings=False, open_comparisons=3), Action.START_ROUND, "needs no rankings"),
        (replace(READY, refusal="Add references."), Action.ADD_PROMPTS, "Add references."),
        (State(active=3, active_sentence="Round 3 runs.", prompts=0), Action.WATCH_ROUND, "Round 3 runs."),
        (State(open_trial=2, candidate="round-0001"), Action.RANK, "Trial 2 is open"),
        (
            State(candidate="round-0001", can_try=True, open_comparisons=9),
            Action.TRY_BLIND,
            "blind with base",
        ),
        (replace(READY, candidate="round-0001", can_try=True), Action.START_ROUND, "300 new rankings"),
        (State(candidate="round-0001"), Action.COMPARE, "round-0001 is not served"),
        (State(candidate="round-0001", open_comparisons=9), Action.RANK, "waits for rankings"),
        (State(candidate="round-0001", candidate_is_better=True, open_comparisons=9), Action.PROMOTE, "People prefer"),
        (State(is_archived=True, active=None, prompts=0), Action.NONE, "archived"),
    ],
)
def test_each_state_of_the_loop_has_one_next_step_and_a_sentence(state, action, part):
    step = next_step(state)
    assert step.action == action and part in step.sentence
    assert bool(step.label) == (action != Action.NONE)


def test_the_set_up_is_shown_until_its_four_steps_are_done_or_a_round_has_ended():
    new = State(models=0, served="", prompts=0, has_guidelines=False, members=1)
    assert [step.is_done for step in setup_steps(new)] == [False] * 4
    half_way = replace(new, models=1, has_guidelines=True)
    assert [step.is_done for step in setup_steps(half_way)] == [True, False, True, False]
    assert shows_setup(new) and shows_setup(half_way)
    assert not shows_setup(replace(half_way, rounds=1)) and not shows_setup(State())
    assert not shows_setup(replace(new, is_archived=True))


@pytest.mark.slow
def test_the_page_of_a_new_project_shows_the_set_up_with_links_to_its_pages(client, project, annotator):
    page = client.get(PAGE)
    assert [step.is_done for step in page.context["setup"]] == [False, False, True, True]
    for path in ("prompts", "settings", "people"):
        assert f'href="/projects/support/{path}/"' in page.content.decode()


@pytest.mark.slow
def test_the_figures_of_the_page_are_those_of_the_rows(client, project, base, rankings, annotator):
    shown = client.get(PAGE).context["figures"]
    held_out = [prompt.split for prompt in project.prompts.all()].count("held_out")
    assert (shown.train_prompts, shown.held_out_prompts) == (20 - held_out, held_out)
    assert (shown.rankings, shown.rankings_today) == (6, 6)
    yesterday = timezone.now() - timedelta(days=1)
    project.rankings.filter(pk__in=list(project.rankings.values_list("pk", flat=True)[:2])).update(created_at=yesterday)
    assert figures.figures_of(project).rankings_today == 4
    assert shown.last is shown.reward_accuracy is shown.win_rate is shown.kl_from_root is None


@pytest.mark.slow
def test_the_last_rounds_figures_have_their_intervals_on_the_page(client, finished):
    Round.objects.update(
        results={
            "reward": {
                "held_out_accuracy": 0.71,
                "held_out_accuracy_low": 0.64,
                "held_out_accuracy_high": 0.78,
                "best_possible_accuracy": 0.84,
            },
            "guards": {"kl_from_root": 3.25, "kl_from_root_low": 2.5, "kl_from_root_high": 4.0, "prompts": 40},
        }
    )
    page = client.get(PAGE).content.decode()
    assert "64 to 78 %, on held-out rankings" in page and "at most 84 % by the annotators" in page
    assert "<b>3.25</b>" in page and "2.50 to 4.00" in page


@pytest.mark.slow
def test_the_human_win_rate_counts_the_preferences_between_checkpoint_and_base(project, finished, annotator):
    assert figures.win_rate_of(finished, None) is None
    ours, theirs = (
        dict(checkpoint.source.completions.order_by("-pk").values_list("prompt_id", "pk"))
        for checkpoint in (finished.checkpoint, finished.base)
    )
    pairs = [[ours[prompt], theirs[prompt]] for prompt in theirs]
    imports.add_comparisons(project, pairs, priority=9)
    for _ in pairs:
        rank_by_position(membership(annotator, project), [1, 2])
    rate = figures.win_rate_of(finished, None)
    assert (len(pairs), rate.value, rate.high, rate.against) == (2, 1.0, 1.0, "base") and 0 < rate.low < 1


@pytest.mark.slow
def test_a_trial_is_the_next_step_and_gives_the_win_rate_with_its_interval(client, project, finished, annotator):
    trial = trials.start_trial(project, [finished.base.source, finished.checkpoint.source], share=100)
    assert client.get(PAGE).context["step"].sentence.startswith("Trial 1 is open")
    assert figures.win_rate_of(finished, trial) is None
    for _ in range(2):
        rank_by_position(membership(annotator, project), [2, 1])
    page = client.get(PAGE)
    rate = page.context["figures"].win_rate
    assert (rate.value, rate.low, rate.high) == (1.0, *confidence_sequence(2, 0, ALPHA))
    assert "round-0001 against base, in trial 1" in page.content.decode()
    assert figures._candidate(page.context["figures"], finished.base) == finished.checkpoint
    trials.end_trial(trial, decision="worse", chosen=finished.base.source)
    assert figures._candidate(figures.figures_of(project), finished.base) is None


@pytest.mark.slow
def test_a_round_is_followed_on_the_first_page_until_its_end(client, project, waiting):
    page = client.get(PAGE)
    assert page.context["step"].action == Action.WATCH_ROUND and "/console/status/" in page.content.decode()
    claim = lifecycle.claim(waiting.pk, "gpu-1:100")
    lifecycle.set_stage(claim, "policy")
    lifecycle.record_metrics(claim, "policy", [{"step": 3, "total": 12, "time": 1.0}], from_start=True)
    poll = client.get(f"{PAGE}status/", headers={"HX-Request": "true"})
    assert poll.status_code == 200 and "25 % done" in poll.content.decode()
    lifecycle.fail(claim, "out of memory")
    ended = client.get(f"{PAGE}status/", headers={"HX-Request": "true"})
    assert (ended.status_code, ended["HX-Refresh"], ended.content) == (286, "true", b"")


@pytest.mark.slow
def test_a_page_with_nothing_to_wait_for_does_not_poll(client, project, finished):
    assert 'hx-trigger="every' not in client.get(PAGE).content.decode()


@pytest.mark.slow
def test_the_poll_of_a_running_round_takes_few_queries(client, claim, django_assert_max_num_queries):
    with django_assert_max_num_queries(5):  # session, user, membership, round, metrics
        client.get(f"{PAGE}status/", headers={"HX-Request": "true"})


@pytest.mark.slow
def test_a_checkpoint_that_is_better_by_people_is_to_be_promoted(client, project, finished, monkeypatch):
    monkeypatch.setattr(figures, "win_rate_of", lambda round_, trial: figures.WinRate(0.7, 0.6, 0.8, "base", None))
    page = client.get(PAGE)
    assert page.context["step"].action == Action.PROMOTE
    client.post(f"/projects/support/checkpoints/{finished.checkpoint.pk}/promote/")
    assert checkpoints.served(project) == finished.checkpoint
    assert client.get(PAGE).context["step"].action != Action.PROMOTE


@pytest.mark.slow
def test_the_list_of_projects_has_a_line_of_state_for_managers_only(client, project, annotator, waiting):
    assert "cannot begin" in client.get("/").content.decode()  # no worker is live
    lifecycle.request_cancel(waiting)
    assert "base is served · comparisons that wait: 14" in client.get("/").content.decode()
    other = Client()
    other.force_login(annotator)
    assert "is served" not in other.get("/").content.decode()
    Project.objects.update(archived_at=timezone.now())
    assert "is served" not in client.get("/").content.decode()
