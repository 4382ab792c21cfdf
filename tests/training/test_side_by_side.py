"""Two checkpoints beside each other on the prompts that both answered."""

import pytest

from feedback import imports
from feedback.errors import Invalid
from feedback.queue import leases
from feedback.reports.source_ratings import get_ratings
from tests.factories import client_of, membership, person, rank_by_position
from tests.training.trial_worlds import import_second, open_trial
from training import checkpoints, side_by_side
from training.models import Round, SampleAtStep

pytestmark = pytest.mark.slow

URL = "/projects/support/checkpoints/compare/"


@pytest.fixture
def second(project, base, tmp_path):
    return import_second(project, tmp_path)


@pytest.fixture
def member(project, manager):
    return membership(manager, project)


def add_prompts(project, count):
    return imports.add_prompts(project, [{"prompt": f"Where is parcel {n}?"} for n in range(count)]).prompt_ids


def answer(project, checkpoint, prompt_id, text, **sampling):
    rows = [{"prompt_id": prompt_id, "text": text, "sampling": sampling}]
    return imports.add_completions(project, checkpoint.source, rows)[0]


def evaluate(project, checkpoint, number, prompt_id, text):
    round_ = Round.objects.create(
        project=project,
        number=number,
        status="finished",
        base=checkpoint,
        cutoff=0,
        ranking_count=0,
        learns=False,
        settings={"round": {"recipe": "evaluate"}},
    )
    SampleAtStep.objects.create(round=round_, job="evaluate", step=1, prompt_id=prompt_id, text=text, reward=0.5)


def texts_of(page):
    return [(paired.one.answer.text, paired.other.answer.text) for paired in page.prompts]


def test_common_prompts_come_in_pages_the_newest_first(project, base, second, member):
    ids = add_prompts(project, 13)
    for pk in ids[:12]:
        answer(project, base, pk, f"base {pk}")
    for pk in ids[1:]:
        answer(project, second, pk, f"second {pk}")
    first = side_by_side.page_of_prompts(member, base, second)
    newest = list(reversed(ids[1:12]))
    assert texts_of(first) == [(f"base {pk}", f"second {pk}") for pk in newest[:10]]
    last = side_by_side.page_of_prompts(member, base, second, first.next)
    assert (texts_of(last), last.next) == ([(f"base {newest[10]}", f"second {newest[10]}")], "")
    with pytest.raises(Invalid, match="cursor"):
        side_by_side.page_of_prompts(member, base, second, "damaged")


def test_compared_answers_come_before_those_of_a_round_of_evaluations_and_others(
    project, base, second, member, annotator
):
    compared, same_round, evaluated, mixed = add_prompts(project, 4)
    for pk in (compared, same_round):
        for checkpoint in (base, second):
            answer(project, checkpoint, pk, f"first of {checkpoint}", round=1 + checkpoint.pk, score=1.0)
            answer(project, checkpoint, pk, f"same round of {checkpoint}", round=1, score=2.0)
    two = [answer(project, checkpoint, compared, f"compared of {checkpoint}") for checkpoint in (second, base)]
    imports.add_comparisons(project, [two], wanted_rankings=4)
    for number, checkpoint in enumerate((base, second), start=5):
        evaluate(project, checkpoint, number, evaluated, f"evaluated of {checkpoint}")
    answer(project, base, mixed, "written of base", round=3, score=1.0)
    evaluate(project, second, 7, mixed, "evaluated of second")
    voters = [
        membership(annotator, project),
        *(membership(person(project, f"v{n}", "annotator"), project) for n in range(3)),
    ]
    for voter, ranks in zip(voters, ([1, 2], [1, 2], [2, 1], [1, 1]), strict=True):
        rank_by_position(voter, ranks)
    pages = side_by_side.page_of_prompts(member, base, second).prompts
    by_prompt = {paired.prompt.pk: paired for paired in pages}
    assert {pk: (paired.one.answer.text, paired.other.answer.text) for pk, paired in by_prompt.items()} == {
        compared: ("compared of base", "compared of second"),
        same_round: ("same round of base", "same round of second"),
        evaluated: ("evaluated of base", "evaluated of second"),
        mixed: ("written of base", "evaluated of second"),
    }
    (votes,) = by_prompt[compared].votes  # the second one's completion stands first
    assert (votes.one, votes.other, votes.ties) == (1, 2, 1)
    assert (by_prompt[compared].one.count, by_prompt[same_round].one.score) == (3, 2.0)
    assert not by_prompt[same_round].has_scores_of_two_rounds and by_prompt[mixed].has_scores_of_two_rounds
    body = client_of(member.user).get(f"/api/v1/projects/support/checkpoints/{second.pk}/beside/{base.pk}").data
    (row,) = (row for row in body["prompts"] if row["prompt"] == compared)
    assert (row["one"]["text"], row["other"]["text"]) == ("compared of second", "compared of base")
    assert [dict(votes) for votes in row["votes"]] == [
        {"comparison": votes.comparison_id, "one": 2, "other": 1, "ties": 1}
    ]
    assert (body["one"], body["win_rate"]["wins"], body["next"], len(body["prompts"])) == ("second", 2, "", 4)
    judgement = side_by_side.judgement_of(base, second)
    assert judgement.rate == get_ratings(project).win_rate(base.source_id, second.source_id)
    assert (judgement.rate.wins, judgement.rate.losses, judgement.rate.ties) == (1, 2, 1)


def test_votes_of_a_comparison_that_the_reader_holds_are_hidden(project, base, second, member, annotator):
    (prompt,) = add_prompts(project, 1)
    two = [answer(project, checkpoint, prompt, f"of {checkpoint}") for checkpoint in (base, second)]
    imports.add_comparisons(project, [two], wanted_rankings=2)
    rank_by_position(membership(annotator, project), [1, 2])
    assert side_by_side.page_of_prompts(member, base, second).prompts[0].votes[0].one == 1
    assert leases.lease_next(member)
    assert side_by_side.page_of_prompts(member, base, second).prompts[0].votes[0].one == 0


def test_answers_of_an_open_trial_are_withheld_until_their_votes(project, base, second, member, annotator):
    open_trial(project, base, second, prompts=2)
    page = side_by_side.page_of_prompts(member, base, second)
    assert (page.prompts, page.withheld) == ([], 2)
    rank_by_position(membership(annotator, project), [1, 2])
    page = side_by_side.page_of_prompts(member, base, second)
    assert (len(page.prompts), page.withheld, page.prompts[0].votes[0].one) == (1, 1, 1)


def test_the_page_shows_the_texts_with_their_scores(client, project, base, second, member):
    client.force_login(member.user)
    (prompt,) = add_prompts(project, 1)
    for checkpoint, score in ((base, 1.25), (second, 2.5)):
        answer(project, checkpoint, prompt, f"<b>{checkpoint}</b> writes", round=1, score=score)
    page = text_of(client.get(URL, {"one": second.pk}))  # beside the served one
    assert "second beside base" in page and ">2.50</span>" in page and ">1.25</span>" in page
    assert "Nobody has compared their answers yet." in page and "<b>second</b> writes" not in page
    same = client_of(member.user).get(f"/api/v1/projects/support/checkpoints/{base.pk}/beside/{base.pk}")
    assert (same.status_code, same.data["message"]) == (400, "Choose two different checkpoints.")
    for wrong in ("x", "9" * 30, "999999"):
        assert client.get(URL, {"one": wrong}).status_code == 404
    assert client.get(URL, {"one": base.pk, "other": second.pk, "cursor": "x"}).status_code == 400


@pytest.mark.full
def test_without_common_prompts_the_page_offers_an_evaluation_and_a_trial(client, project, base, second, member):
    client.force_login(member.user)
    assert "Choose two checkpoints" in text_of(client.get(URL))
    assert "Choose two checkpoints" in text_of(client.get(URL, {"one": base.pk, "other": base.pk}))
    add_prompts(project, 5)
    project.prompts.update(split="train")
    assert "There are no held-out prompts to evaluate on" in text_of(client.get(URL, {"one": second.pk}))
    project.prompts.update(split="held_out")
    empty = text_of(client.get(URL, {"one": second.pk}))
    assert "No prompt that both answered" in empty
    assert all(f'action="/projects/support/checkpoints/{one.pk}/evaluate/"' in empty for one in (base, second))
    assert f'action="/projects/support/checkpoints/{second.pk}/try/"' in empty
    checkpoints.retire(second, member.user)
    retired = text_of(client.get(URL, {"one": second.pk}))
    assert "second is retired, so it answers no more prompts." in retired and "/try/" not in retired


@pytest.mark.full
def test_the_page_links_to_the_trials_of_both(client, project, base, second, member, annotator):
    client.force_login(member.user)
    open_trial(project, base, second, prompts=2)
    assert "2 prompts of the open trial are left out" in text_of(client.get(URL, {"one": base.pk, "other": second.pk}))
    rank_by_position(membership(annotator, project), [1, 2])
    page = text_of(client.get(URL, {"one": base.pk, "other": second.pk}))
    assert 'href="/projects/support/trials/1/"' in page and "second wins 0 % of 1 decisive vote" in page


def text_of(response) -> str:
    assert response.status_code == 200
    return " ".join(response.content.decode().split())
