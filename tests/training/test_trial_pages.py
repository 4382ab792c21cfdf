"""Pages of blind trials: the list, a trial's page, its buttons and the gate."""

import pytest
from django.utils import timezone

from feedback.models import Trial
from tests.factories import membership
from tests.training.trial_worlds import WINS_TO_DECIDE, import_second, open_trial, vote
from training import checkpoints, gate
from training.models import Round

URL = "/projects/support"


@pytest.fixture
def console(client, manager):
    client.force_login(manager)
    return client


@pytest.fixture
def second(project, base, tmp_path):
    return import_second(project, tmp_path)


@pytest.fixture
def trial(project, base, second):
    return open_trial(project, base, second, prompts=18)


@pytest.fixture
def member(annotator, project):
    return membership(annotator, project)


def text_of(response) -> str:
    return " ".join(response.content.decode().split())


def test_without_trials_the_list_says_what_is_missing_and_offers_the_next_step(
    console, project, base, comparisons, tmp_path
):
    page = console.get(f"{URL}/trials/")
    assert "No trial yet" in text_of(page) and "needs two usable checkpoints" in text_of(page)
    assert f'href="{URL}/rounds/new/?recipe=trial"' not in text_of(page)
    import_second(project, tmp_path)
    assert f'href="{URL}/rounds/new/?recipe=trial"' in text_of(console.get(f"{URL}/trials/"))


@pytest.mark.slow
def test_an_open_trial_shows_its_votes_and_what_they_say(console, project, trial, member):
    page = text_of(console.get(f"{URL}/trials/1/"))
    assert "second has no decisive vote yet." in page and "No comparison is ranked yet." in page
    vote(member, "second", count=6)
    vote(member, "base", count=2)
    vote(member)
    page = text_of(console.get(f"{URL}/trials/1/"))
    assert "second wins 75 % of 8 decisive votes (" in page and "You may look after every vote." in page
    assert "6 for it, 2 against it" in page and "ann</b> second > base" in page.replace("&gt;", ">")
    assert "base = second" in page or "second = base" in page
    assert "<dt>Comparisons left</dt><dd>9<" in page
    assert "also train later rounds; those of held-out prompts never do" in page
    assert f'hx-get="{URL}/trials/1/status/"' in page
    assert "second wins 75 %" in text_of(console.get(f"{URL}/trials/"))


def test_the_interval_on_the_page_is_that_of_the_evidence(console, project, trial, member):
    vote(member, "second", count=6)
    bar = console.get(f"{URL}/trials/1/").context["candidates"][0]["bar"]
    # Six wins and no loss: 20 = B(16, 10) / (B(10, 10) · p^6), computed with factorials.
    assert (bar["low"] / 200, (bar["low"] + bar["width"]) / 200) == (pytest.approx(0.3350, abs=1e-4), 1)
    assert bar["share"] == 200


def test_polling_ends_with_the_trial(console, project, trial, manager):
    answer = console.get(f"{URL}/trials/1/status/")
    assert answer.status_code == 200 and "HX-Refresh" not in answer
    gate.end(trial, manager)
    answer = console.get(f"{URL}/trials/1/status/")
    assert (answer.status_code, answer["HX-Refresh"]) == (286, "true")
    page = text_of(console.get(f"{URL}/trials/1/"))
    assert "hx-get" not in page and "Undecided" in page and "mona ended it" in page


@pytest.mark.slow
def test_a_manager_ends_promotes_and_rolls_back_by_buttons(console, project, trial, member, base, second):
    page = text_of(console.get(f"{URL}/trials/1/"))
    promote = f"{URL}/trials/1/promote/{second.pk}/"
    assert promote in page and f"{URL}/trials/1/end/" in page and "checkpoints/roll-back" not in page
    assert console.get(promote).status_code == console.get(f"{URL}/trials/1/end/").status_code == 405
    assert console.post(promote).url == f"{URL}/trials/1/"
    page = text_of(console.get(f"{URL}/trials/1/"))
    assert "mona promoted second." in page and "Roll back to base" in page and promote not in page
    assert console.post(promote).status_code == 409
    assert console.post(f"{URL}/trials/1/end/").status_code == 409
    console.post(f"{URL}/checkpoints/roll-back/")
    assert checkpoints.served(project) == base and promote in text_of(console.get(f"{URL}/trials/1/"))


@pytest.mark.slow
def test_the_page_says_that_the_gate_promoted(console, project, trial, member):
    console.post(f"{URL}/trials/gate/", {"gate": "automatic", "futile_below": "52"})
    project.loop.refresh_from_db()
    assert (project.loop.gate, project.loop.worthwhile_share) == ("automatic", 0.52)
    assert "surely wins less than 52 %" in text_of(console.get(f"{URL}/trials/"))
    page = text_of(console.get(f"{URL}/trials/1/"))
    assert "The gate promotes a better candidate at once" in page and "as futile" not in page, "it started before"
    vote(member, "second", count=WINS_TO_DECIDE)
    gate.settle_open_trials()
    page = text_of(console.get(f"{URL}/trials/1/"))
    assert "Better: second." in page and "Its votes ended it" in page and "The gate promoted second." in page


@pytest.mark.parametrize("values", [{"gate": "never"}, {"gate": "hand", "futile_below": "30"}, {}])
def test_a_gate_that_cannot_be_is_refused(console, project, values):
    assert console.post(f"{URL}/trials/gate/", values).status_code == 400


def test_answers_are_shown_after_their_vote_alone(console, project, base, second, member):
    open_trial(project, base, second, prompts=3)
    vote(member, "second")
    page = text_of(console.get(f"{URL}/trials/1/"))
    assert page.count('class="sample"') == 1
    assert page.count("<b>base</b>") == page.count("<b>second</b>") == 2  # in the heading and in the example


@pytest.mark.slow
def test_the_button_tries_a_checkpoint_blind_and_says_why_it_cannot(
    console, project, base, second, comparisons, manager
):
    page = text_of(console.get(f"{URL}/console/"))
    address = f"{URL}/checkpoints/{second.pk}/try/"
    assert address in page and f"{URL}/checkpoints/{base.pk}/try/" not in page
    assert "It is served: other checkpoints are tried against it." in page
    assert console.get(address).status_code == 405
    assert console.post(address).url == f"{URL}/rounds/1/"
    started = Round.objects.get()
    assert (started.recipe.name, started.settings["round"]["checkpoints"]) == ("trial", ["base", "second"])
    assert "Answers of base, second for a trial." in text_of(console.get(f"{URL}/rounds/1/"))
    page = text_of(console.get(f"{URL}/console/"))
    assert address not in page and page.count("Round 1 is still waiting") >= 1
    assert "The checkpoints of round 1 are answering" in text_of(console.get(f"{URL}/trials/"))


@pytest.mark.slow
def test_the_loop_page_says_that_a_trial_is_open(console, project, trial, manager):
    assert "Trial 1 is open: 100 % of what annotators get" in text_of(console.get(f"{URL}/console/"))
    gate.end(trial, manager)
    assert "Trial 1 is open" not in text_of(console.get(f"{URL}/console/"))


def test_unknown_trials_are_not_found(console, project, trial, base):
    for path in ("trials/9/", "trials/9/status/"):
        assert console.get(f"{URL}/{path}").status_code == 404
    for path in ("trials/9/end/", f"trials/9/promote/{base.pk}/", "trials/1/promote/999999/"):
        assert console.post(f"{URL}/{path}").status_code == 404
    assert Trial.objects.get().is_open


def test_an_archived_project_has_no_buttons(console, project, trial):
    project.archived_at = timezone.now()
    project.save()
    page = text_of(console.get(f"{URL}/trials/1/"))
    assert "trials/1/end/" not in page and "trials/1/promote" not in page
    assert "trial-gate" not in text_of(console.get(f"{URL}/trials/")) and not gate.settle_open_trials()
