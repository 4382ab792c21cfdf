"""An annotator who tries to tell sources or gold apart, by all that pages and API give, does no better than chance."""

import math
import random
import re
from collections import Counter
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test import Client

from feedback import imports
from feedback.actions import rankings
from feedback.models import Comparison, ComparisonItem, Lease, Project
from feedback.queue import blinding, leases
from feedback.reports import progress
from tests.factories import URL, add_work, client_of, membership, person, rank_next

pytestmark = pytest.mark.django_db

TRIES = 500
PAGES, AGAIN = 150, 250  # of tests whose tries are several requests each, or a lease that runs out
DEVIATIONS = 4.5  # of a fair coin: one false alarm in 150,000 checks


def assert_chance(hits: int, tries: int, chance: float) -> None:
    assert abs(hits - tries * chance) <= DEVIATIONS * math.sqrt(tries * chance * (1 - chance))


def assert_tells_nothing(guesses: list[bool], truth: list[bool]) -> None:
    """Gold and other work are guessed to be gold equally often."""
    gold = [guess for guess, is_gold in zip(guesses, truth, strict=True) if is_gold]
    real = [guess for guess, is_gold in zip(guesses, truth, strict=True) if not is_gold]
    rate = sum(guesses) / len(guesses)
    spread = math.sqrt(rate * (1 - rate) * (1 / len(gold) + 1 / len(real)))
    assert abs(sum(gold) / len(gold) - sum(real) / len(real)) <= DEVIATIONS * spread


@pytest.fixture
def project(project) -> Project:
    """With a key of which the test knows the draws, whatever ran before it."""
    project.blinding_key = UUID(int=20261127)
    project.save()
    return project


def add_gold(project, count):
    """Of the same form as `add_work` makes, so that texts tell nothing."""
    start = project.prompts.count()
    rows = [
        {
            "prompt": f"question {start + index}",
            "completions": [f"answer {place} to {start + index}" for place in (0, 1)],
        }
        for index in range(count)
    ]
    groups = imports.add_prompts(project, rows).completion_ids
    return imports.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2]} for ids in groups])


def analyze(index: int) -> None:
    """Now and then, as autovacuum does: inside a test's transaction it cannot."""
    if index % 50 == 0:
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")


def text_length(lease: dict) -> int:
    return len("".join([*lease["completions"], *(message["content"] for message in lease["messages"])]))


def old_order(*known: object) -> list[int]:
    order = [0, 1]
    random.Random(":".join(str(each) for each in known)).shuffle(order)
    return order


def test_nobody_can_tell_which_source_wrote_what(project, annotator):
    """Files list the sources in a fixed order: who could compute the shuffle would know them all."""
    work = add_work(project, TRIES)
    first = {item.completion.text for item in ComparisonItem.objects.filter(position=0).select_related("completion")}
    client, hits = client_of(annotator), Counter()
    for index in range(TRIES):
        analyze(index)
        lease = client.post(f"{URL}/leases", {}, format="json").json()["lease"]
        is_first = [text in first for text in lease["completions"]]
        number, user = lease["comparison"], annotator.pk
        guesses = {
            "shown first": 0,
            "seeded as ever": old_order(number, user).index(0),
            "seeded with the id": old_order(blinding.comparison_id(membership(annotator, project), number), user).index(
                0
            ),
            "seeded with the lease": old_order(lease["lease"], user).index(0),
            "by parity": number % 2,
            "by turns": index % 2,
        }
        hits.update({rule: is_first[guess] for rule, guess in guesses.items()})
        said = {"ranks": [1, 2], "idempotency_key": str(uuid4()), "seconds": 1}
        assert client.post(f"{URL}/leases/{lease['lease']}/ranking", said, format="json").status_code == 201
    assert Comparison.objects.filter(pk__in=[each.pk for each in work], open_slots=0).count() == TRIES
    for count in hits.values():
        assert_chance(count, TRIES, 0.5)


def test_nobody_can_tell_gold_by_what_pages_and_api_show(project, annotator, plain_static_files):
    """Taking and giving back, counts, order, numbers, headers: each piece of work is looked at in all these ways."""
    add_work(project, 110)
    add_gold(project, 90)
    project.gold_percent = 36
    project.save()
    api, browser = client_of(annotator), Client()
    browser.force_login(annotator)
    truth, seen = [], []
    while True:
        analyze(len(seen))
        taken = api.post(f"{URL}/leases", {}, format="json")
        lease = taken.json()["lease"]
        if lease is None:
            break
        truth.append(Lease.objects.get(pk=lease["lease"]).reason == Lease.Reason.GOLD)
        api.delete(f"{URL}/leases/{lease['lease']}")
        again = api.post(f"{URL}/leases", {}, format="json").json()["lease"]
        page = browser.get("/projects/support/rank/")
        said = {"ranks": [1, 2], "idempotency_key": str(uuid4()), "seconds": 1}
        ranked = api.post(f"{URL}/leases/{again['lease']}/ranking", said, format="json")
        seen.append(
            {
                "remaining": int(re.search(rb'data-remaining="(\d+)"', page.content).group(1)),
                "today": int(re.search(rb'data-today="(\d+)"', page.content).group(1)),
                "number": lease["comparison"],
                "again": again["comparison"],
                "same lease": again["lease"] == lease["lease"],
                "form": (*taken.headers, *page.headers, *ranked.headers, *lease, *ranked.json()["ranking"]),
                "length": len(taken.content) - len(str(lease["comparison"])) - text_length(lease),
                "place": len(seen),
            }
        )
    after = [*seen[1:], {"remaining": 0, "today": len(seen)}]
    assert len(seen) >= PAGES
    assert not truth[-1]  # the real work was used up, and no gold came after it
    numbers = sorted(each["number"] for each in seen)
    form = Counter(each["form"] for each in seen).most_common(1)[0][0]
    usual_length = Counter(each["length"] for each in seen).most_common(1)[0][0]
    rules = {
        "another one came": [each["again"] != each["number"] for each in seen],
        "the lease stayed": [each["same lease"] for each in seen],
        "the count stayed": [each["remaining"] == then["remaining"] for each, then in zip(seen, after, strict=True)],
        "nothing was done": [each["today"] == then["today"] for each, then in zip(seen, after, strict=True)],
        "a high number": [each["number"] > numbers[len(numbers) // 2] for each in seen],
        "a neighbour": [
            min(abs(each["number"] - other) for other in numbers if other != each["number"]) < 1000 for each in seen
        ],
        "even": [each["number"] % 2 == 0 for each in seen],
        "another form": [each["form"] != form for each in seen],
        "another length": [each["length"] != usual_length for each in seen],
        "the third": [each["place"] % 3 == 0 for each in seen],
    }
    for guesses in rules.values():
        assert_tells_nothing(guesses, truth)
    for rule in ("another one came", "the lease stayed", "another form", "another length"):
        assert not any(rules[rule][:-1])
    stayed = [each for each, stays in zip(seen, rules["the count stayed"], strict=True) if stays]
    assert all(each["remaining"] == progress.COUNTED for each in stayed)  # more are not told apart


@pytest.mark.parametrize("let_go", ["give back", "run out", "skip and undo"])
def test_nobody_can_tell_gold_by_whether_it_comes_again_while_others_work(project, annotator, colleague, let_go):
    """Others take real work that one lets go: gold goes away as well."""
    add_work(project, 700)
    add_gold(project, 500)
    project.gold_percent = 40
    project.save()
    ann, cole, coin = membership(annotator, project), membership(colleague, project), random.Random(5)
    truth, came_again = [], []
    for index in range(AGAIN):
        analyze(index)
        lease = leases.lease_next(ann)
        truth.append(lease.reason == Lease.Reason.GOLD)
        before = lease.comparison_id
        if let_go == "give back":
            leases.release(ann, lease.pk)
        elif let_go == "run out":
            Lease.objects.filter(pk=lease.pk).update(expires_at=lease.taken_at)
            leases.reclaim(project.pk)
        else:
            rankings.skip_comparison(ann, lease.pk)
        if coin.random() < 0.5:
            rank_next(cole)
        came_again.append(_came_again(ann, before, let_go))
        rank_next(ann)
    assert AGAIN / 4 < sum(truth) < AGAIN / 2
    assert AGAIN / 4 < sum(came_again) < AGAIN
    assert_tells_nothing(came_again, truth)


def _came_again(ann, before, let_go):
    if let_go != "skip and undo":
        return leases.lease_next(ann).comparison_id == before
    try:
        return rankings.undo_last(ann).comparison_id == before
    except rankings.Conflict:
        return False


def test_a_comparisons_number_is_the_same_each_time_and_leads_back_to_it(project, annotator, manager):
    ann, mona = membership(annotator, project), membership(manager, project)
    numbers = [blinding.comparison_number(ann, pk) for pk in range(2000)]
    assert [blinding.comparison_id(ann, number) for number in numbers] == list(range(2000))
    assert len(set(numbers)) == 2000
    assert max(numbers) < 2**53  # what JavaScript keeps exactly
    assert blinding.comparison_number(mona, 7) == blinding.comparison_id(mona, 7) == 7
    other = membership(
        person(Project.objects.create(slug="b", name="b"), "bob", "annotator"), Project.objects.get(slug="b")
    )
    assert blinding.comparison_number(other, 7) != blinding.comparison_number(ann, 7)


def test_annotators_are_told_of_a_project_what_they_need_to_rank(project, annotator, manager):
    project.gold_percent = 30
    project.save()
    for url in (URL, "/api/v1/projects"):
        shown = client_of(annotator).get(url).json()
        shown = shown if url == URL else shown[0]
        assert set(shown) == {
            *(
                "slug",
                "name",
                "guidelines",
                "lease_minutes",
                "comparisons_ahead",
                "strength_points",
                "flags",
                "one_key_pairs",
            ),
            *("attributes", "role", "created_at", "archived_at"),
        }
    assert client_of(manager).get(URL).json()["gold_percent"] == 30


def test_a_managers_lease_names_the_comparison_as_exports_do(project, manager):
    (comparison,) = add_work(project, 1)
    lease = client_of(manager).post(f"{URL}/leases", {}, format="json").json()["lease"]
    assert lease["comparison"] == comparison.pk
