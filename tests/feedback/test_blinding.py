"""Pages and API do not let an annotator tell sources or gold apart better than by chance."""

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise
from math import comb
from typing import Any
from unittest import mock
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import Client, TestCase

from feedback import imports
from feedback.actions import ranking_undo, rankings
from feedback.errors import Conflict
from feedback.models import ComparisonItem, Lease, Membership, Project, User
from feedback.queue import blinding, leases
from feedback.reports import own_quality, progress, statistics
from tests.factories import URL, add_work, client_of, membership, person
from tests.lengths import length

pytestmark = pytest.mark.django_db

TRIES_PER_WORLD = 100
WORLDS = length(full=5, short=1)
TRIES = WORLDS * TRIES_PER_WORLD
FALSE_ALARM = 1e-5  # chance that a rule which tells nothing fails a check; 62 % right of 500 fails it
PAGE_EVERY = 25  # tries: a page takes as long as ten API calls, and shows the same numbers
FIGURES_EVERY = 10  # tries


def assert_chance(hits: int, tries: int) -> None:
    """Assert that the number of right guesses is compatible with chance: exact binomial test, two-sided."""
    tail = sum(comb(tries, right) for right in range(max(hits, tries - hits), tries + 1))
    assert min(1, 2 * Fraction(tail, 2**tries)) >= FALSE_ALARM


def assert_independent(guesses: list[bool], truth: list[bool]) -> None:
    """Assert that gold is not guessed to be gold more or less often than other work: Fisher's exact test."""
    tries, gold, guessed = len(truth), sum(truth), sum(guesses)
    hits = sum(guess and is_gold for guess, is_gold in zip(guesses, truth, strict=True))
    ways = [comb(gold, right) * comb(tries - gold, guessed - right) for right in range(min(gold, guessed) + 1)]
    tail = min(sum(ways[: hits + 1]), sum(ways[hits:]))
    assert min(1, 2 * Fraction(tail, sum(ways))) >= FALSE_ALARM


@pytest.mark.parametrize(("right", "is_chance"), [(250, True), (284, True), (310, False), (190, False)])
def test_a_guess_that_is_right_in_more_than_three_of_five_tries_is_detected(right, is_chance):
    truth = [True] * 250 + [False] * 250
    guesses = [index < right // 2 for index in range(250)] + [index >= right // 2 for index in range(250)]
    for check in (lambda: assert_chance(right, 500), lambda: assert_independent(guesses, truth)):
        if is_chance:
            check()
        else:
            with pytest.raises(AssertionError):
                check()


def add_gold(project: Project, number: int) -> list[int]:
    """Add gold comparisons of the same form as those of `add_work`, so that the texts reveal nothing."""
    start = project.prompts.count()
    rows = [
        {
            "prompt": f"question {start + index}",
            "completions": [
                {"text": f"answer {place} to {start + index}", "source": f"source-{place}"} for place in (0, 1)
            ],
        }
        for index in range(number)
    ]
    groups = imports.add_prompts(project, rows).completion_ids
    return imports.add_gold(project, [{"completion_ids": ids, "ranks": [1, 2]} for ids in groups])


def analyze(index: int) -> None:
    """Analyse the tables now and then, since autovacuum cannot inside a test's transaction."""
    if index % 50 == 0:
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE feedback_comparison, feedback_lease, feedback_ranking, feedback_skip")


def text_length(lease: dict) -> int:
    return len("".join([*lease["completions"], *(message["content"] for message in lease["messages"])]))


def old_order(*known: object) -> list[int]:
    order = [0, 1]
    random.Random(":".join(str(part) for part in known)).shuffle(order)
    return order


@dataclass
class Record:
    """The observations of one annotator at each try, and whether the try was gold."""

    truth: list[bool] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)
    hits: Counter = field(default_factory=Counter)  # by rule about the order of completions
    pages: list[HttpResponse] = field(default_factory=list)
    figures: list[tuple[int, statistics.OwnFigures]] = field(default_factory=list)  # (rankings made, what is shown)


@pytest.mark.slow
class TestAttempts(TestCase):
    """Attempts of annotators at real work and gold, each in a world of their own, built once for both tests.

    Several small worlds, because a query in a long transaction also reads the row versions that it made outdated.
    """

    @classmethod
    def setUpTestData(cls):
        for number in range(WORLDS):
            # Keys differ, and are the same in each run. The draws are not: they also depend on ids.
            key = UUID(int=20261127 + number)
            project = Project.objects.create(slug=f"world-{number}", name=f"World {number}", blinding_key=key)
            add_work(project, 75)
            add_gold(project, 90)

    def worlds(self, **settings) -> list[Project]:
        Project.objects.update(**settings)
        return list(Project.objects.order_by("slug"))

    @pytest.mark.usefixtures("plain_static_files")
    def test_pages_and_api_reveal_neither_sources_nor_gold(self):
        """Guess by orders, numbers, counts, lengths, headers and figures of each comparison.

        Files list the sources in a fixed order: an annotator who could compute the shuffle would know them all.
        Figures of quality are read as if the day were over after each ranking.
        """
        today = progress.midnight()
        # Half of the work: so the number of comparisons that remain is seen both at its limit and below.
        with mock.patch.multiple(progress, midnight=lambda: today, MAX_REMAINING=60):
            records = [
                rank_all(project, person(project, f"ann-{project.slug}", "annotator"))
                for project in self.worlds(gold_percent=36, annotators_see_quality=True)
            ]
        truth = [is_gold for record in records for is_gold in record.truth]
        seen = [row for record in records for row in record.seen]
        assert len(seen) == len(truth) >= TRIES
        for rule in records[0].hits:
            assert_chance(sum(record.hits[rule] for record in records), len(seen))
        guesses = [rules_for_gold(record) for record in records]
        for rule in guesses[0]:
            assert_independent([guess for of_record in guesses for guess in of_record[rule]], truth)
        for record in records:
            assert not record.truth[-1]  # the real work was used up, and no gold came after it
            assert_figures_are_of_full_batches(record)
        for name in ("form", "length", "held for"):
            assert len({row[name] for row in seen}) == 1
        assert len({tuple(page.headers) for record in records for page in record.pages}) == 1
        # Larger counts are not told apart.
        assert all((row["remaining"] == 60) == row["count stayed"] for row in seen if row["remaining after"] != 59)
        assert any(row["count stayed"] for row in seen)

    @pytest.mark.full
    def test_gold_is_leased_again_as_often_as_real_work(self):
        """If others take the stand-in of gold that was let go, the gold is not leased again; otherwise it is."""
        coin = random.Random(5)
        tries = []
        for project in self.worlds(gold_percent=40):
            add_work(project, 60)
            ann = membership(person(project, f"ann-{project.slug}", "annotator"), project)
            cole = membership(person(project, f"cole-{project.slug}", "annotator"), project)
            tries += return_and_take_again(ann, cole, coin)
        truth, came_again, alone = (list(column) for column in zip(*tries, strict=True))
        assert len(truth) == TRIES
        assert TRIES / 4 < sum(truth) < TRIES / 2
        assert TRIES / 4 < sum(came_again) < TRIES
        assert_independent(came_again, truth)
        for way in range(3):
            assert_independent(came_again[way::3], truth[way::3])
        assert all(again for again, was_alone in zip(came_again, alone, strict=True) if was_alone)


def rank_all(project: Project, annotator: User) -> Record:
    """Rank everything that the annotator gets over the API, and note what they could see at each try."""
    member, record = membership(annotator, project), Record()
    first = set(
        ComparisonItem.objects.filter(position=0, comparison__project=project).values_list(
            "completion__text", flat=True
        )
    )
    url, api, browser = f"/api/v1/projects/{project.slug}", client_of(annotator), Client()
    browser.force_login(annotator)
    record.figures.append((0, figures_shown(member)))
    lease = api.post(f"{url}/leases", {}, format="json").json()["lease"]
    counts = progress.counts(membership(annotator, project))
    while lease:
        place = len(record.seen)
        analyze(place)
        held = Lease.objects.get(pk=lease["lease"])
        record.truth.append(held.reason == Lease.Reason.GOLD)
        is_first = [text in first for text in lease["completions"]]
        for rule, guess in orders(held, lease["comparison"], place).items():
            record.hits[rule] += is_first[guess]
        if place % PAGE_EVERY == 0:
            record.pages.append(page := browser.get(f"/projects/{project.slug}/rank/"))
            assert int(re.search(rb'data-remaining="(\d+)"', page.content).group(1)) == counts.remaining
            assert int(re.search(rb'data-today="(\d+)"', page.content).group(1)) == counts.today
        body = {"ranks": [1, 2], "idempotency_key": str(uuid4()), "seconds": 1}
        response = api.post(f"{url}/leases/{lease['lease']}/ranking?next=1", body, format="json")
        answer = response.json()
        counts_after = progress.counts(membership(annotator, project))
        record.seen.append(
            {
                "remaining": counts.remaining,
                "remaining after": counts_after.remaining,
                "count stayed": counts_after.remaining == counts.remaining,
                "number": lease["comparison"],
                "form": (*response.headers, *lease, *answer["ranking"]),
                "length": len(str(lease)) - len(str(lease["comparison"])) - text_length(lease),
                "held for": held.expires_at - held.taken_at,
            }
        )
        assert counts_after.today == counts.today + 1
        if is_read(place + 1):
            record.figures.append((place + 1, figures_shown(member)))
        lease, counts = answer["next"], counts_after
    return record


def rules_for_gold(record: Record) -> dict[str, list[bool]]:
    """Return guesses, by rule and try, at which comparisons are gold."""
    rows = record.seen
    numbers = sorted(row["number"] for row in rows)
    middle = numbers[len(numbers) // 2]
    near = {low for low, high in pairwise(numbers) if high - low < 1000}
    return {
        "the count stayed": [row["count stayed"] for row in rows],
        "a high number": [row["number"] > middle for row in rows],
        "a neighbour": [row["number"] in near for row in rows],
        "even": [row["number"] % 2 == 0 for row in rows],
        "the third": [place % 3 == 0 for place in range(len(rows))],
    }


def return_and_take_again(ann: Membership, cole: Membership, coin: random.Random) -> list[tuple[bool, bool, bool]]:
    """Let each comparison go and take one again; return (was gold, came again, nobody ranked meanwhile) of each try."""
    lease, other = leases.lease_next(ann), leases.lease_next(cole)
    tries = []
    for index in range(TRIES_PER_WORLD):
        analyze(index)
        is_gold, number, way = lease.reason == Lease.Reason.GOLD, lease.comparison_id, LET_GO[index % 3]
        give_up_lease(ann, lease, way)
        is_alone = coin.random() < 0.5
        if not is_alone:
            other = rank_and_take(cole, other)
        lease = lease_again(ann, way)
        tries.append((is_gold, lease.comparison_id == number, is_alone))
        lease = rank_and_take(ann, lease)
    return tries


def figures_shown(member: Membership) -> statistics.OwnFigures:
    """Return what the page of one's own figures shows once the day is over."""
    tomorrow = progress.midnight() + timedelta(days=1)
    with mock.patch.object(own_quality, "midnight", lambda: tomorrow):
        return statistics.own_figures(member)


def is_read(made: int) -> bool:
    """Read the figures after every tenth ranking, and after the last one before a batch ends."""
    return made % FIGURES_EVERY == 0 or made % own_quality.BATCH == own_quality.BATCH - 1


def assert_figures_are_of_full_batches(record: Record) -> None:
    """Assert that the number of rankings is exact, and that quality is that of all full batches and of nothing else.

    The pass rate is not shown while the batches have too little gold, which by chance (0.5 %) happens after the first.
    """
    for made, shown in record.figures:
        assert shown.done.total == made
        gold_made = sum(record.truth[: made // own_quality.BATCH * own_quality.BATCH])
        shown_gold = 0 if shown.gold is None else shown.gold.comparisons
        assert shown_gold == (gold_made if gold_made >= statistics.MIN_GOLD else 0)
    for (made, before), (made_after, after) in pairwise(record.figures):
        if made // own_quality.BATCH == made_after // own_quality.BATCH:
            assert (before.agreement, before.gold) == (after.agreement, after.gold)
    assert max(made for made, _shown in record.figures) >= own_quality.BATCH


def orders(held: Lease, number: int, place: int) -> dict[str, int]:
    """Return guesses at which of two completions is of the source that files name first."""
    user = held.annotator_id
    return {
        "shown first": 0,
        "seeded as ever": old_order(number, user).index(0),
        "seeded with the id": old_order(held.comparison_id, user).index(0),
        "seeded with the lease": old_order(held.pk, user).index(0),
        "by parity": number % 2,
        "by turns": place % 2,
    }


LET_GO = ("give back", "run out", "skip and undo")


def give_up_lease(member: Membership, lease: Lease, way: str) -> None:
    if way == "give back":
        leases.release(member, lease.pk)
    elif way == "run out":
        Lease.objects.filter(pk=lease.pk).update(expires_at=lease.taken_at)
        leases.reclaim(lease.project_id)
    else:
        rankings.skip_comparison(member, lease.pk)


def lease_again(member: Membership, way: str) -> Lease:
    if way == "skip and undo":
        try:
            undone = ranking_undo.undo_last(member)
        except Conflict:  # others have it
            pass
        else:
            assert isinstance(undone, Lease)
            return undone
    return leases.lease_next(member)


def rank_and_take(member: Membership, lease: Lease) -> Lease:
    details = {"beside": [], "idempotency_key": uuid4(), "seconds": 1}
    _ranking, following = rankings.record_ranking_and_lease(member, lease.pk, [1, 2], **details)
    return following or leases.lease_next(member)


@pytest.mark.slow
def test_a_comparisons_number_is_stable_and_can_be_inverted(project, annotator, manager):
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


def test_annotators_get_only_the_project_settings_that_ranking_needs(project, annotator, manager):
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
                "information_flags",
                "review_flags",
                "one_key_pairs",
            ),
            *("attributes", "role", "created_at", "archived_at"),
        }
    assert client_of(manager).get(URL).json()["gold_percent"] == 30


def test_a_managers_lease_has_the_comparison_id_of_exports(project, manager):
    (comparison,) = add_work(project, 1)
    lease = client_of(manager).post(f"{URL}/leases", {}, format="json").json()["lease"]
    assert lease["comparison"] == comparison.pk
