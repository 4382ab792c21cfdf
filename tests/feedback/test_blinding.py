"""Pages and API do not let an annotator tell sources or gold apart better than by chance."""

import random
import re
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from math import comb
from unittest import mock
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test import Client, TestCase
from django.utils import timezone

from feedback import imports
from feedback.actions import ranking_undo, rankings
from feedback.errors import Conflict
from feedback.models import ComparisonItem, Lease, Membership, Project
from feedback.queue import blinding, leases
from feedback.reports import own_quality, progress, statistics
from tests.factories import URL, add_work, client_of, membership, person

pytestmark = pytest.mark.django_db

TRIES = 500
FALSE_ALARM = 1e-5  # chance that a rule which tells nothing fails a check; 62 % right of 500 fails it
PAGE_EVERY = 25  # tries: a page takes as long as ten API calls, and shows the same numbers
FIGURES_EVERY = 10  # tries


def assert_chance(hits: int, tries: int) -> None:
    """Assert that the number of right guesses is compatible with chance: exact binomial test, two-sided."""
    tail = sum(comb(tries, right) for right in range(max(hits, tries - hits), tries + 1))
    assert min(1, 2 * Fraction(tail, 2**tries)) >= FALSE_ALARM


def assert_tells_nothing(guesses: list[bool], truth: list[bool]) -> None:
    """Assert that gold is not guessed to be gold more or less often than other work: Fisher's exact test."""
    tries, gold, guessed = len(truth), sum(truth), sum(guesses)
    hits = sum(guess and is_gold for guess, is_gold in zip(guesses, truth, strict=True))
    ways = [comb(gold, right) * comb(tries - gold, guessed - right) for right in range(min(gold, guessed) + 1)]
    tail = min(sum(ways[: hits + 1]), sum(ways[hits:]))
    assert min(1, 2 * Fraction(tail, sum(ways))) >= FALSE_ALARM


@pytest.mark.parametrize(("right", "is_chance"), [(250, True), (284, True), (310, False), (190, False)])
def test_a_rule_that_is_right_in_more_than_three_of_five_tries_is_found(right, is_chance):
    truth = [True] * 250 + [False] * 250
    guesses = [index < right // 2 for index in range(250)] + [index >= right // 2 for index in range(250)]
    for check in (lambda: assert_chance(right, 500), lambda: assert_tells_nothing(guesses, truth)):
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


class TestAttempts(TestCase):
    """Attempts of an annotator at real work and gold of one world, which is built once for all of them."""

    @classmethod
    def setUpTestData(cls):
        # With this key the test knows the draws, whatever ran before it.
        cls.project = Project.objects.create(slug="support", name="Support", blinding_key=UUID(int=20261127))
        add_work(cls.project, 370)
        add_gold(cls.project, 300)

    def settings_of_project(self, **settings) -> Project:
        Project.objects.filter(pk=self.project.pk).update(**settings)
        return Project.objects.get(pk=self.project.pk)

    @pytest.mark.usefixtures("plain_static_files")
    def test_pages_and_api_reveal_neither_sources_nor_gold(self):
        """Guess by orders, numbers, counts, lengths, headers and figures of each comparison.

        Files list the sources in a fixed order: an annotator who could compute the shuffle would know them all.
        Figures of quality are read as if it were always midnight.
        """
        project = self.settings_of_project(gold_percent=36, annotators_see_quality=True)
        annotator = person(project, "ann", "annotator")
        items = ComparisonItem.objects.filter(position=0)
        first = set(items.values_list("completion__text", flat=True))
        reasons = Lease.objects.filter(annotator=annotator)
        api, browser = client_of(annotator), Client()
        browser.force_login(annotator)
        truth, seen, pages, hits = [], [], [], Counter()
        figures = [(0, figures_shown(membership(annotator, project)))]  # (rankings made, what the page shows)
        lease = api.post(f"{URL}/leases", {}, format="json").json()["lease"]
        counts = progress.counts(membership(annotator, project))
        while lease:
            analyze(len(seen))
            held = reasons.get(pk=lease["lease"])
            truth.append(held.reason == Lease.Reason.GOLD)
            is_first = [text in first for text in lease["completions"]]
            hits.update(rule for rule, guess in orders(held, lease["comparison"], len(seen)).items() if is_first[guess])
            if len(seen) % PAGE_EVERY == 0:
                pages.append(page := browser.get("/projects/support/rank/"))
                assert int(re.search(rb'data-remaining="(\d+)"', page.content).group(1)) == counts.remaining
                assert int(re.search(rb'data-today="(\d+)"', page.content).group(1)) == counts.today
            body = {"ranks": [1, 2], "idempotency_key": str(uuid4()), "seconds": 1}
            response = api.post(f"{URL}/leases/{lease['lease']}/ranking?next=1", body, format="json")
            answer = response.json()
            counts_after = progress.counts(membership(annotator, project))
            seen.append(
                {
                    "remaining": counts.remaining,
                    "count stayed": counts_after.remaining == counts.remaining,
                    "number": lease["comparison"],
                    "form": (*response.headers, *lease, *answer["ranking"]),
                    "length": len(str(lease)) - len(str(lease["comparison"])) - text_length(lease),
                    "held for": held.expires_at - held.taken_at,
                }
            )
            assert counts_after.today != counts.today
            if is_read(len(seen)):
                figures.append((len(seen), figures_shown(membership(annotator, project))))
            lease, counts = answer["next"], counts_after
        assert len(seen) >= TRIES
        assert not truth[-1]  # the real work was used up, and no gold came after it
        for right in hits.values():
            assert_chance(right, len(seen))
        usual = {
            name: Counter(row[name] for row in seen).most_common(1)[0][0] for name in ("form", "length", "held for")
        }
        numbers = sorted(row["number"] for row in seen)
        middle = numbers[len(numbers) // 2]
        near = {low for low, high in pairwise(numbers) if high - low < 1000}
        rules = {
            "the count stayed": [row["count stayed"] for row in seen],
            "a high number": [row["number"] > middle for row in seen],
            "a neighbour": [row["number"] in near for row in seen],
            "even": [row["number"] % 2 == 0 for row in seen],
            "the third": [place % 3 == 0 for place in range(len(seen))],
        }
        for guesses in rules.values():
            assert_tells_nothing(guesses, truth)
        assert_figures_change_at_batch_ends_only(figures)
        for name, common in usual.items():
            assert all(row[name] == common for row in seen)
        assert len({tuple(page.headers) for page in pages}) == 1
        # Larger counts are not told apart.
        assert all(row["remaining"] == progress.MAX_REMAINING for row in seen if row["count stayed"])

    def test_gold_comes_again_as_often_as_other_work(self):
        """If others take the stand-in of gold that was let go, the gold is gone, too. Otherwise it comes again."""
        project = self.settings_of_project(gold_percent=40)
        add_work(project, 300)
        ann = membership(person(project, "ann", "annotator"), project)
        cole = membership(person(project, "cole", "annotator"), project)
        coin = random.Random(5)
        lease, other = leases.lease_next(ann), leases.lease_next(cole)
        truth, came_again, alone = [], [], []
        for index in range(TRIES):
            analyze(index)
            truth.append(lease.reason == Lease.Reason.GOLD)
            number, way = lease.comparison_id, LET_GO[index % 3]
            let_go(ann, lease, way)
            alone.append(coin.random() < 0.5)
            if not alone[-1]:
                other = rank_and_take(cole, other)
            lease = take_again(ann, way)
            came_again.append(lease.comparison_id == number)
            lease = rank_and_take(ann, lease)
        assert TRIES / 4 < sum(truth) < TRIES / 2
        assert TRIES / 4 < sum(came_again) < TRIES
        assert_tells_nothing(came_again, truth)
        for way in range(3):
            assert_tells_nothing(came_again[way::3], truth[way::3])
        assert all(again for again, was_alone in zip(came_again, alone, strict=True) if was_alone)


def figures_shown(member: Membership) -> statistics.OwnFigures:
    """Return what the page of one's own figures shows."""
    with mock.patch.object(own_quality, "midnight", timezone.now):
        return statistics.own_figures(member)


def is_read(made: int) -> bool:
    """Read the figures after every tenth ranking, and after the last one before a batch ends."""
    return made % FIGURES_EVERY == 0 or made % own_quality.BATCH == own_quality.BATCH - 1


def assert_figures_change_at_batch_ends_only(figures: list[tuple[int, statistics.OwnFigures]]) -> None:
    """Assert that the number of rankings is exact and that quality changes with each full batch, and only then."""
    assert all(shown.done.total == made for made, shown in figures)
    for (made, before), (made_after, after) in pairwise(figures):
        batch_ended = made // own_quality.BATCH != made_after // own_quality.BATCH
        assert ((before.agreement, before.gold) != (after.agreement, after.gold)) == batch_ended


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


def let_go(member: Membership, lease: Lease, way: str) -> None:
    if way == "give back":
        leases.release(member, lease.pk)
    elif way == "run out":
        Lease.objects.filter(pk=lease.pk).update(expires_at=lease.taken_at)
        leases.reclaim(lease.project_id)
    else:
        rankings.skip_comparison(member, lease.pk)


def take_again(member: Membership, way: str) -> Lease:
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
