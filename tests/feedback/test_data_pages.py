"""The lists of all data and the pages of single rows: search, filters, order, cursors, history."""

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from feedback import imports
from feedback.actions import demonstrations, rankings, review_undo, reviews
from feedback.errors import Conflict, Invalid
from feedback.models import Comparison, Completion, Demonstration, Prompt, Ranking
from feedback.queue import leases
from feedback.queue.blinding import comparison_number
from feedback.reports.data import lists, rows
from feedback.reports.data.filters import Filters
from tests.factories import adjudicate, membership, person, rank_next

pytestmark = pytest.mark.django_db
AT = "/projects/support"


def pks(listed, project, sort="newest", **filters):
    return [row.pk for row in lists.read(listed, project, Filters(**filters), sort=sort).rows]


def texts(project, **filters):
    return [row.beginning for row in lists.read(lists.COMPLETIONS, project, Filters(**filters)).rows]


@pytest.fixture
def stored(project):
    """Prompts with completions by two sources, in several languages."""
    answers = {
        "Where is my parcel?": ["It is at the depot in Köln.", "Your parcel arrives on Monday."],
        "我的包裹在哪里？": ["您的包裹在科隆的仓库。", "包裹星期一到达。"],
        "Tell me a joke": ["A parcel walks into a bar.", ""],
    }
    for prompt, (one, two) in answers.items():
        completions = [{"text": one, "source": "one"}, {"text": two, "source": "two"}]
        imports.add_prompts(project, [{"prompt": prompt, "completions": completions}], compare=True)
    return project


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "count"),
    [
        ("parcel", 2),
        ("PARCEL monday", 1),
        ('"parcel arrives"', 1),
        ('"arrives parcel"', 0),
        ("parcel -monday", 1),
        ("köln or bar", 2),
        ("包裹", 2),
        ("仓库", 1),
        ("裹包", 0),
        ("%' ) & !", 0),
    ],
)
def test_the_search_takes_words_phrases_and_exclusions_of_any_language(stored, typed, count):
    assert len(texts(stored, search=typed)) == count


def test_the_search_of_comparisons_looks_at_the_messages_without_their_roles(stored):
    assert len(pks(lists.COMPARISONS, stored, search="joke")) == 1
    assert len(pks(lists.PROMPTS, stored, search="包裹")) == 1
    assert pks(lists.PROMPTS, stored, search="user") == []


def test_a_changed_prompt_is_found_by_its_new_words(stored):
    prompt = Prompt.objects.filter(messages__0__content="Tell me a joke").get()
    prompt.messages = [{"role": "user", "content": "Sing a song"}]
    prompt.save()
    assert pks(lists.PROMPTS, stored, search="joke") == []
    assert pks(lists.PROMPTS, stored, search="song") == [prompt.pk]


def test_a_long_text_is_stored_and_its_beginning_can_be_searched(project):
    long = "beginning " + "".join(f"word{n} " for n in range(100_000))
    added = imports.add_prompts(project, [{"prompt": "?", "completions": [long, "short"]}])
    assert pks(lists.COMPLETIONS, project, search="beginning") == [added.completion_ids[0][0]]
    assert pks(lists.COMPLETIONS, project, search="word99999") == []


def test_completions_of_all_sources_come_in_one_order_and_another_project_has_none_of_them(stored, project):
    everything = list(Completion.objects.order_by("-created_at", "-pk").values_list("pk", flat=True))
    assert pks(lists.COMPLETIONS, stored) == everything
    assert pks(lists.COMPLETIONS, stored, sort="oldest") == everything[::-1]
    assert set(texts(stored, source="two")) == {"Your parcel arrives on Monday.", "包裹星期一到达。", ""}
    other = type(project).objects.create(slug="other", name="Other")
    assert [pks(listed, other) for listed in lists.LISTS.values()] == [[]] * 6
    assert texts(other, search="parcel") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prompts", "completions", "comparisons", "rankings"])
@pytest.mark.parametrize("sort", ["newest", "oldest"])
def test_pages_have_every_row_once_while_rows_are_added(stored, ann, name, sort):
    for _ in range(3):
        rank_next(ann)
    listed = lists.LISTS[name]
    before = pks(listed, stored, sort)
    visited, cursor = [], ""
    while True:
        page = lists.read(listed, stored, Filters(), sort=sort, cursor=cursor, size=2)
        visited += [row.pk for row in page.rows]
        imports.add_prompts(stored, [{"prompt": str(uuid4()), "completions": ["x", "y"]}])
        cursor = page.next
        if not cursor or len(visited) >= len(before):
            break
    assert visited[: len(before)] == before


def test_a_cursor_of_another_order_or_a_damaged_one_is_refused(stored):
    cursor = lists.read(lists.PROMPTS, stored, Filters(), size=1).next
    for damaged in (cursor[:-4], "x", "ü", "W10"):
        with pytest.raises(Invalid):
            lists.read(lists.PROMPTS, stored, Filters(), cursor=damaged)
    with pytest.raises(Invalid):
        lists.read(lists.PROMPTS, stored, Filters(), sort="oldest", cursor=cursor)


def test_comparisons_are_filtered_by_state_and_sorted_by_disagreement(project, work, ann, cole, mona):
    one, two, three = work(3, wanted_rankings=2)
    for member, ranks in ((ann, [1, 2]), (cole, [2, 1])):
        while lease := leases.lease_next(member):
            order = ranks if lease.comparison_id != one.pk else [1, 2]
            shown = [order[position] for position in lease.display_order]
            rankings.record_ranking(member, lease.pk, shown, idempotency_key=uuid4(), seconds=1)
    open_one = work(1)[0]
    adjudicate(mona, three, [1, 2])
    by_state = {state: pks(lists.COMPARISONS, project, state=state) for state in lists.COMPARISON_STATES}
    assert by_state == {
        "open": [open_one.pk],
        "ranked": [three.pk, two.pk, one.pk],
        "disagreement": [two.pk],
        "adjudicated": [three.pk],
        "gold": [],
    }
    assert pks(lists.COMPARISONS, project, sort="disagreement") == [two.pk]


def test_rankings_are_filtered_by_person_flag_comment_words_and_standing(project, work, ann, cole, mona):
    work(2, wanted_rankings=2)
    first = rank_next(ann, comment="Both are rude, 但是第一个更好", flags=["all bad"])
    second = rank_next(ann)
    third = rank_next(cole, comment="Fine")
    assert pks(lists.RANKINGS, project) == [third.pk, second.pk, first.pk]
    assert pks(lists.RANKINGS, project, annotator="ann") == [second.pk, first.pk]
    assert pks(lists.RANKINGS, project, flag="all bad") == [first.pk]
    assert pks(lists.RANKINGS, project, flag="all good") == []
    assert pks(lists.RANKINGS, project, has_comment=True) == [third.pk, first.pk]
    assert pks(lists.RANKINGS, project, search="rude 第一个") == [first.pk]
    reviews.discard(mona, third.pk, reason="Unread")
    assert pks(lists.RANKINGS, project) == [second.pk, first.pk]
    (discarded,) = lists.read(lists.RANKINGS, project, Filters(state="discarded")).rows
    assert (discarded.standing, discarded.annotator.username) == ("discarded", "cole")
    assert len(pks(lists.RANKINGS, project, state="all")) == 4
    with pytest.raises(Invalid, match="nobody-here"):
        pks(lists.RANKINGS, project, annotator="nobody-here")


@pytest.mark.slow
def test_skips_are_found_by_person_reason_and_day(project, work, ann, cole):
    work(2)
    skips = [
        rankings.skip_comparison(member, leases.lease_next(member).pk, reason=reason)
        for member, reason in ((ann, "Not my language"), (cole, ""))
    ]
    now = timezone.now()
    assert pks(lists.SKIPS, project) == [skips[1].pk, skips[0].pk]
    assert pks(lists.SKIPS, project, has_reason=True) == pks(lists.SKIPS, project, search="language") == [skips[0].pk]
    assert pks(lists.SKIPS, project, annotator="cole") == [skips[1].pk]
    assert pks(lists.SKIPS, project, until=now - timedelta(days=1)) == pks(lists.SKIPS, project, since=now) == []


def test_a_list_reads_no_long_text(stored, django_assert_max_num_queries):
    with django_assert_max_num_queries(5) as queries:  # two, and three of the transaction that limits the time
        lists.read(lists.PROMPTS, stored, Filters())
    assert '"messages",' not in queries.captured_queries[-1]["sql"]


def test_a_search_that_takes_too_long_is_ended_with_a_sentence(project, monkeypatch):
    monkeypatch.setattr(lists, "MAX_SECONDS", 0.05)

    def ids(*_place):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(60)")

    with pytest.raises(Invalid, match="takes too long"):
        lists.read(replace(lists.PROMPTS, ids=ids), project, Filters())
    assert pks(lists.PROMPTS, project) == []  # the connection can be used


@pytest.mark.slow
def test_the_history_of_a_comparison_has_everything_in_the_order_of_time(project, work, ann, cole, mona):
    (comparison,) = work(1, wanted_rankings=3)
    rank_next(ann)
    mine = Ranking.objects.get()
    rankings.revise_ranking(ann, mine.pk, [2, 1], idempotency_key=uuid4(), seconds=2)
    rankings.skip_comparison(cole, leases.lease_next(cole).pk, reason="Too hard")
    decision = reviews.discard(mona, Ranking.objects.get(is_live=True).pk, reason="Unread")
    review_undo.undo(mona, decision.pk)
    adjudicate(mona, comparison, [1, 2])
    history = rows.comparison_row(mona, comparison.pk)
    assert [(event.kind, event.who) for event in history.events] == [
        ("made", ""),
        ("ranking", "ann"),
        ("ranking", "ann"),
        ("skip", "cole"),
        ("review", "mona"),
        ("revision", "ann"),
        ("review_undone", "mona"),
        ("revision", "ann"),
        ("review", "mona"),
        ("revision", "ann"),
        ("ranking", "mona"),
    ]
    assert len([event for event in history.events if event.ranking]) == Ranking.objects.count()
    assert {item.completion.source.name for item in history.items} == {"source-0", "source-1"}


@pytest.mark.slow
def test_a_manager_who_holds_a_comparison_does_not_see_the_others_rankings_of_it(project, work, ann, mona):
    (comparison,) = work(1, wanted_rankings=2)
    rank_next(ann)
    leases.lease_next(mona)
    with pytest.raises(Conflict):
        rows.comparison_row(mona, comparison.pk)
    completion = comparison.completions.first()
    (entry,) = rows.completion_row(mona, completion.pk).compared
    assert (entry.is_held, entry.rankings) == (True, [])
    rank_next(mona)
    (entry,) = rows.completion_row(mona, completion.pk).compared
    assert sorted(ranking.annotator.username for ranking in entry.rankings) == ["ann", "mona"]


@pytest.mark.slow
def test_a_demonstration_leads_to_the_completion_that_it_was_edited_from(project, work, ann, mona):
    (comparison,) = work(1)
    lease = leases.lease_next(ann)
    origin = comparison.answers(lease.display_order)[0].text
    demonstrations.record_demonstration(ann, comparison_number(ann, comparison.pk), "Better answer", place=0)
    (demonstration,) = Demonstration.objects.all()
    assert pks(lists.DEMONSTRATIONS, project, search="better", annotator="ann") == [demonstration.pk]
    edited = rows.completion_row(mona, Completion.objects.get(text=origin).pk).edited
    assert edited == [demonstration]
    events = rows.comparison_row(mona, demonstration.pair_id).events
    assert {event.kind for event in events} == {"made", "demonstration", "ranking"}


@pytest.mark.slow
def test_the_pages_lead_from_a_list_to_its_rows_and_back(client, stored, manager, ann):
    rank_next(ann, comment="Clear")
    client.force_login(manager)
    comparison = Comparison.objects.get(ranking_count=1)
    completion = comparison.completions.first()
    addresses = {
        "prompts/": f"{AT}/data/prompts/{comparison.prompt_id}/",
        "data/completions/?source=one": f"{AT}/data/completions/{completion.pk}/",
        "data/comparisons/?state=ranked": f"{AT}/data/comparisons/{comparison.pk}/",
        "data/rankings/?search=clear&flag=&annotator=ann": f"{AT}/data/comparisons/{comparison.pk}/#ranking-",
    }
    for path, link in addresses.items():
        assert link in client.get(f"{AT}/{path}").content.decode(), path
    one_prompt = client.get(f"{AT}/data/prompts/{comparison.prompt_id}/").content.decode()
    assert f"/data/completions/{completion.pk}/" in one_prompt
    assert f"/data/comparisons/{comparison.pk}/" in one_prompt
    page = client.get(f"{AT}/data/comparisons/{comparison.pk}/").content.decode()
    assert f"/data/completions/{completion.pk}/" in page
    assert "Clear" in page
    assert "A &gt; B" in page or "B &gt; A" in page


@pytest.mark.slow
def test_a_value_that_a_filter_does_not_take_is_named_on_the_page(client, stored, manager):
    client.force_login(manager)
    for query in ("source=nobody", "sort=longest", "since=yesterday", "cursor=x"):
        page = client.get(f"{AT}/data/completions/?{query}")
        assert page.status_code == 200, query
        assert "errorlist" in page.content.decode(), query


@pytest.mark.slow
def test_the_filters_stay_in_the_address_of_the_next_page(client, project, manager):
    imports.add_prompts(project, [{"prompt": f"Parcel {n}?"} for n in range(26)])
    client.force_login(manager)
    context = client.get(f"{AT}/prompts/?search=parcel&sort=oldest").context
    assert context["next_page"].startswith("?search=parcel&sort=oldest&cursor=")
    second = client.get(f"{AT}/prompts/{context['next_page']}")
    assert [row.beginning for row in second.context["rows"]] == ["Parcel 25?"]
    assert second.context["first_page"] == "?search=parcel&sort=oldest"


@pytest.mark.slow
def test_an_empty_project_has_a_sentence_in_every_list(client, project, manager):
    client.force_login(manager)
    for name in lists.LISTS:
        path = "prompts" if name == "prompts" else f"data/{name}"
        assert "Nothing here yet" in client.get(f"{AT}/{path}/").content.decode(), name


@pytest.mark.slow
def test_the_prompts_page_leaves_the_counting_to_a_second_request(client, stored, manager):
    client.force_login(manager)
    page = client.get(f"{AT}/prompts/")
    assert f'hx-get="{AT}/prompts/inventory/"' in page.content.decode()
    assert "inventory" not in page.context
    counted = client.get(f"{AT}/prompts/inventory/")
    assert (counted.context["inventory"].completions, counted.context["inventory"].open_comparisons) == (6, 3)


def test_rows_of_another_project_are_not_found(client, stored, project):
    other = type(project).objects.create(slug="other", name="Other")
    client.force_login(person(other, "max", "manager"))
    comparison = Comparison.objects.first()
    for path in (
        f"prompts/{comparison.prompt_id}",
        f"comparisons/{comparison.pk}",
        f"completions/{comparison.completions.first().pk}",
    ):
        assert client.get(f"/projects/other/data/{path}/").status_code == 404, path
    assert membership(person(project, "mia", "manager"), project).is_manager
