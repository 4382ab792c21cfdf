"""The search of the lists of all data beside a search by plain Python over every text."""

import random
from itertools import pairwise

import pytest

from feedback import imports
from feedback.models import Comparison, Completion, Prompt, Ranking
from feedback.reports.data import filters, lists
from feedback.reports.data.filters import Filters
from tests.factories import rank_next

pytestmark = pytest.mark.django_db

WORDS = ("rare", "parcel", "depot", "Köln", "late", "joke")
WEIGHTS = (1, 20, 8, 4, 12, 6)
# What a person types, and the same as a condition on the words of a text.
SEARCHES = {
    "parcel": lambda words: "parcel" in words,
    "rare": lambda words: "rare" in words,
    "LATE köln": lambda words: {"late", "köln"} <= set(words),
    '"parcel late"': lambda words: ("parcel", "late") in list(pairwise(words)),
    "joke or rare": lambda words: {"joke", "rare"} & set(words),
    "parcel -depot": lambda words: "parcel" in words and "depot" not in words,
    "-parcel": lambda words: "parcel" not in words,
    "nowhere": lambda words: False,
}
# Rows that are read one by one before the words' index is used: all, some, and none.
READS = ((1000,), (3, 12), ())


@pytest.fixture
def stored(project, ann):
    """Prompts with two completions each, and rankings with comments, all of random words."""
    draw = random.Random(1)
    rows = []
    for number in range(24):
        one, two, prompt = (f"{' '.join(draw.choices(WORDS, WEIGHTS, k=5))} {number}" for _ in range(3))
        completions = [{"text": one, "source": "a"}, {"text": two, "source": "b"}]
        rows.append({"prompt": prompt, "completions": completions})
    imports.add_prompts(project, rows, compare=True)
    for _ in range(12):
        rank_next(ann, comment=" ".join(draw.choices(WORDS, WEIGHTS, k=4)))
    return project


def all_pages(listed, project, sort, **conditions):
    """Return the ids of all pages of a search, nine rows a page."""
    ids, cursor = [], ""
    while True:
        page = lists.ids_of(listed, project, Filters(**conditions), sort=sort, cursor=cursor, size=9)
        ids += page.ids
        if not (cursor := page.next):
            return ids


def words_of(text):
    return text.lower().split()


def reading(monkeypatch, reads):
    """Let searches read these numbers of rows one by one."""
    monkeypatch.setattr(filters, "STORED_READS", reads)
    monkeypatch.setattr(filters, "COMPUTED_READS", reads[:1])


@pytest.mark.slow
def test_all_pages_of_a_search_have_what_a_search_through_every_text_finds(stored, monkeypatch):
    newest_first = ("-created_at", "-pk")
    comparisons = Comparison.objects.select_related("prompt").order_by(*newest_first)
    texts = {
        lists.PROMPTS: {row.pk: row.messages[0]["content"] for row in Prompt.objects.order_by(*newest_first)},
        lists.COMPLETIONS: {row.pk: row.text for row in Completion.objects.order_by(*newest_first)},
        lists.COMPARISONS: {row.pk: row.prompt.messages[0]["content"] for row in comparisons},
        lists.RANKINGS: {row.pk: row.comment for row in Ranking.objects.order_by(*newest_first)},
    }
    sizes = set()
    for reads in READS[1:]:
        reading(monkeypatch, reads)
        for listed, of_rows in texts.items():
            for typed, holds in SEARCHES.items():
                expected = [pk for pk, text in of_rows.items() if holds(words_of(text))]
                assert all_pages(listed, stored, "newest", search=typed) == expected, (reads, listed.name, typed)
                sizes.add(len(expected))
    assert {0, 1} <= sizes and max(sizes) > 21


def test_a_search_keeps_the_other_filters_and_the_order(stored, monkeypatch):
    rows = Completion.objects.filter(source__name="b").order_by("created_at", "pk")
    late = [row.pk for row in rows if "late" in words_of(row.text)]
    ranked = Comparison.objects.filter(ranking_count__gt=0).order_by("-created_at", "-pk")
    late_ranked = [row.pk for row in ranked if "late" in words_of(row.prompt.messages[0]["content"])]
    assert len(late) > 9 and late_ranked
    for reads in READS:
        reading(monkeypatch, reads)
        assert all_pages(lists.COMPLETIONS, stored, "oldest", search="late", source="b") == late
        assert all_pages(lists.COMPARISONS, stored, "newest", search="late", state="ranked") == late_ranked


@pytest.mark.slow
def test_a_search_of_one_project_does_not_find_the_texts_of_another(stored, monkeypatch):
    other = type(stored).objects.create(slug="other", name="Other")
    for reads in READS:
        reading(monkeypatch, reads)
        for listed in lists.LISTS.values():
            assert all_pages(listed, other, "newest", search="late") == [], listed.name
