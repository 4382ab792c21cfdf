"""Completions of several turns: stored, compared, shown, marked and exported as whole dialogues."""

import hashlib
import json
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction

from feedback import dialogues, imports
from feedback.actions import demonstrations, rankings
from feedback.actions.spans import VisibleSpan, shown_spans, visible_spans
from feedback.dialogues import Answer
from feedback.errors import Invalid
from feedback.export import formats
from feedback.export.demonstrations import demonstrations as exported_demonstrations
from feedback.models import Comparison, Completion
from feedback.queue import leases
from feedback.queue.blinding import comparison_number
from feedback.rendering import render_answer
from feedback.rendering.visible import visible_answer
from feedback.web.presenters import card_of_lease, present_answer
from tests.factories import URL, client_of, lines, rank_by_position

pytestmark = pytest.mark.django_db


def dialogue(*contents):
    return [{"role": ("assistant", "user")[place % 2], "content": content} for place, content in enumerate(contents)]


GOOD = dialogue("Which **order**?", "Number 7.", "It comes on **Friday**")
BAD = dialogue("No idea.", "Please look.", "")
GOOD_TEXT = "Assistant:\nWhich **order**?\n\nUser:\nNumber 7.\n\nAssistant:\nIt comes on **Friday**"


@pytest.fixture
def comparison(project):
    """A comparison of two dialogues and a text."""
    row = {"prompt": "Where is my parcel?", "completions": [{"turns": GOOD}, {"turns": BAD}, "Soon."]}
    imports.add_prompts(project, [row], compare=True)
    return Comparison.objects.get()


def test_a_dialogue_is_stored_with_its_turns_and_the_text_that_follows_from_them(project, comparison):
    good, bad, text = Completion.objects.order_by("pk")
    assert (good.turns, good.text) == (GOOD, GOOD_TEXT)
    assert (text.turns, text.text) == (None, "Soon.")
    canonical = json.dumps(GOOD, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert good.digest == hashlib.sha256(b"turns\0" + canonical.encode()).hexdigest()
    assert comparison.size == 3 and comparison.answers() == [good.answer, bad.answer, text.answer]


def test_the_contents_of_the_turns_are_found_in_the_text():
    for start, content in dialogues.contents(GOOD):
        assert GOOD_TEXT[start : start + len(content)] == content


def test_texts_and_turns_of_a_comparison_are_read_by_one_query(comparison, django_assert_num_queries):
    read = Comparison.objects.get(pk=comparison.pk)
    with django_assert_num_queries(1):
        assert read.texts()[2] == "Soon."
        assert [answer.turns for answer in read.answers([2, 1, 0])] == [None, BAD, GOOD]


def test_the_same_dialogue_is_stored_once_and_a_text_that_imitates_it_is_another_completion(project, comparison):
    prompt = comparison.prompt_id
    source = Completion.objects.filter(turns=GOOD).get().source
    again, imitation, single = imports.add_completions(
        project,
        source,
        [
            {"prompt_id": prompt, "turns": GOOD},
            {"prompt_id": prompt, "text": GOOD_TEXT},
            {"prompt_id": prompt, "turns": dialogue("Soon.")},
        ],
    )
    assert again == Completion.objects.get(turns=GOOD).pk
    assert single == Completion.objects.get(text="Soon.").pk
    assert Completion.objects.get(pk=imitation).turns is None
    added = imports.add_comparisons(project, [[again, imitation]])
    assert Comparison.objects.get(pk=added.created[0]).size == 2


def test_turns_that_differ_only_in_the_speaker_are_different_completions(project):
    one, other = (
        dialogue("a\n\nUser:\nb\n\nAssistant:\nc", "d", "e"),
        dialogue("a", "b", "c\n\nUser:\nd\n\nAssistant:\ne"),
    )
    assert dialogues.text_of(one) == dialogues.text_of(other)
    imports.add_prompts(project, [{"prompt": "q", "completions": [{"turns": one}, {"turns": other}]}], compare=True)
    assert Comparison.objects.get().size == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("completion", "sentence"),
    [
        ({"turns": GOOD, "text": "x"}, 'either "text" or "turns"'),
        ({"turns": []}, "must alternate between assistant and user"),
        ({"turns": dialogue("a", "b")}, "must alternate between assistant and user"),
        ({"turns": [{"role": "user", "content": "a"}]}, "must alternate between assistant and user"),
        ({"turns": [{"role": "system", "content": "a"}]}, '"role" must be assistant or user'),
        ({"turns": dialogue("a", " ", "c")}, "A turn's content is empty"),
        ({"turns": dialogue("a", "b\0", "c")}, "NUL"),
        ({"turns": "a"}, '"turns" must be a list'),
        ({"turns": dialogue("a", "b", 3)}, "A turn's content must be a text"),
        ({"turns": dialogue("a", "b", "x" * 1_000_000)}, "more than the maximum of"),
        ({"turns": BAD, "demonstration": True}, "A demonstration needs a text"),  # its last turn is empty
    ],
)
def test_invalid_dialogues_are_refused_with_a_sentence(project, completion, sentence):
    with pytest.raises(Invalid, match=sentence):
        imports.add_prompts(project, [{"prompt": "q", "completions": [completion]}])
    assert not Completion.objects.exists()


def test_the_database_refuses_turns_that_are_no_dialogue(comparison):
    with pytest.raises(IntegrityError), transaction.atomic():
        Completion.objects.filter(text="Soon.").update(turns=dialogue("Soon."))


def test_the_page_shows_the_turns_and_a_marked_span_is_stored_in_the_text(ann, comparison):
    lease = leases.lease_next(ann)
    card = card_of_lease(lease, ann)
    place = lease.display_order.index(0)
    shown = card.completions[place]
    other = card.completions[lease.display_order.index(2)]
    assert (shown.last_turn, other.last_turn) == ("It comes on **Friday**", None)
    assert shown.html.count('class="turn assistant"') == 2 and shown.html.count('class="turn user"') == 1
    visible = visible_answer(Answer(GOOD_TEXT, GOOD))
    assert visible.text == "Whichorder?Number7.ItcomesonFriday"  # without the lines that say who speaks
    start = visible.text.index("7.It")
    marked = VisibleSpan(place, start, start + 4, "bad", "7.It")
    ranking = rankings.record_ranking(ann, lease.pk, [1, 2, 3], idempotency_key=uuid4(), seconds=1.0, spans=[marked])
    (span,) = shown_spans(ranking)
    assert GOOD_TEXT[span["start"] : span["end"]] == "7.\n\nAssistant:\nIt"
    assert visible_spans([span], Answer(GOOD_TEXT, GOOD)) == [(start, start + 4, "bad")]


def test_empty_turns_and_hostile_text_are_shown_safely():
    html = render_answer(Answer("", dialogue("", "<script>x</script>", "b")))
    assert 'data-note="(an empty answer)"' in html and "<script>" not in html


def test_a_long_dialogue_is_plain_text_on_the_page_and_in_the_offsets():
    turns = dialogue("*a* " * 10_000, "b", "*c* " * 10_000)
    answer = Answer(dialogues.text_of(turns), turns)
    assert render_answer(answer).count('<div class="plain"') == 3
    assert visible_answer(answer).text.startswith("*a*")


@pytest.mark.slow
def test_exports_contain_whole_dialogues(ann, project, comparison):
    rank_by_position(ann, [1, 3, 2])
    (row,) = formats.lines(project, "rankings")
    assert row["completions"][0] == GOOD_TEXT and row["turns"] == [GOOD, BAD, None]
    pairs = [(row["chosen"], row["rejected"]) for row in formats.lines(project, "trl")]
    text = dialogue("Soon.")
    assert pairs == [(GOOD, text), (GOOD, BAD), (text, BAD)]
    (columns,) = formats.lines(project, "table")
    assert [json.loads(turns) for turns in columns["turns_json"]] == [GOOD, BAD, []]


def test_exports_of_texts_name_no_turns(ann, project, work):
    work(1)
    rank_by_position(ann, [1, 2])
    (row,) = formats.lines(project, "rankings")
    assert "turns" not in row
    (columns,) = formats.lines(project, "table")
    assert columns["turns_json"] == ["[]", "[]"]


@pytest.mark.slow
def test_the_api_takes_and_gives_the_turns(manager, annotator, mona, project, comparison):
    api = client_of(manager)
    row = {"prompt_id": comparison.prompt_id, "turns": dialogue("Hm.", "Well?", "Soon.")}
    sent = api.post(f"{URL}/completions?source=model-a", lines(row), content_type="application/x-ndjson")
    assert sent.status_code == 201
    lease = client_of(annotator).post(f"{URL}/leases", {}, format="json").json()["lease"]
    by_text = dict(zip(lease["completions"], lease["turns"], strict=True))
    assert by_text[GOOD_TEXT] == GOOD and by_text["Soon."] is None
    case = api.get(f"{URL}/review/comparisons/{comparison.pk}").json()
    assert dict(zip(case["completions"], case["turns"], strict=True)) == by_text


@pytest.mark.slow
def test_an_edited_last_turn_makes_a_whole_dialogue_that_is_ranked_above_its_origin(ann, project, comparison):
    lease = leases.lease_next(ann)
    number, place = comparison_number(ann, comparison.pk), lease.display_order.index(0)
    with pytest.raises(Invalid, match="Change the text first"):
        demonstrations.record_demonstration(ann, number, GOOD[-1]["content"] + "\n", place=place)
    written = demonstrations.record_demonstration(ann, number, "Better.", place=place)
    edited = [*GOOD[:2], {"role": "assistant", "content": "Better."}]
    assert (written.completion.turns, written.completion.text) == (edited, dialogues.text_of(edited))
    assert demonstrations.record_demonstration(ann, number, "Better.", place=place) == written
    (pair,) = formats.lines(project, "trl")
    assert (pair["chosen"], pair["rejected"]) == (edited, GOOD)
    (row,) = exported_demonstrations(project)
    assert (row["messages"], row["completion"]) == ([*comparison.prompt.messages, *GOOD[:2]], "Better.")
    assert "turns" not in row  # the turns before are not the person's, and may be bad
    undone = present_answer(ann, demonstrations.withdraw_if_last(ann))
    assert (undone["text"], undone["letter"]) == ("Better.", "ABC"[place])
    assert not list(exported_demonstrations(project)) and not list(formats.lines(project, "rankings"))


def test_an_answer_to_dialogues_from_an_empty_page_is_a_text(ann, project, comparison):
    leases.lease_next(ann)
    written = demonstrations.record_demonstration(ann, comparison_number(ann, comparison.pk), "Better.")
    assert (written.completion.turns, written.completion.text, written.pair) == (None, "Better.", None)
    assert "turns" not in next(exported_demonstrations(project))


def test_dialogues_are_imported_as_demonstrations(project):
    row = {"prompt": "Where is it?", "completions": [{"turns": GOOD, "demonstration": True}]}
    imports.add_prompts(project, [row])
    assert [row["turns"] for row in exported_demonstrations(project)] == [GOOD]
