"""Dialogues of the demo: what the customer and the support say, and how many points a dialogue has."""

from itertools import islice
from random import Random

import pytest

from training.demo.annotators import Annotator
from training.demo.base_model import dialogue_demonstrations
from training.demo.dialogue_utility import issue_of, utility
from training.demo.grammar import dialogues
from training.demo.projects import DIALOGUE, SUPPORT, dialogue_rows
from training.demo.utility import utility as utility_of_reply

MESSAGE = "Hello. Where is my kettle?"
CUSTOMER = "It is order 130."
ASK = "Which order is it, please?"
ANSWER = "You get order 130 tomorrow."


def played(first, last, customer=CUSTOMER):
    roles = ("assistant", "user", "assistant")
    return [{"role": role, "content": text} for role, text in zip(roles, (first, customer, last), strict=True)]


@pytest.mark.parametrize(
    ("first", "last", "points"),
    [
        (f"I am sorry about that. {ASK}", f"Thank you. {ANSWER}", 6.0),
        (ASK, ANSWER, 5.0),
        (ASK, "You get order 131 tomorrow.", 0.0),  # another customer's order
        (ASK, f"{ANSWER} You get order 131 tomorrow.", 0.0),  # one of the two is right
        (ASK, "Your parcel comes tomorrow.", 2.5),
        (ASK, "The refund of order 130 is paid today.", 2.0),  # the right number, another issue
        (ASK, ASK, 1.0),
        ("Your parcel comes today.", ANSWER, 2.0),  # a promise before the order is known
        ("These things take time.", ANSWER, 3.0),
        (f"{ASK} Do not write again.", ANSWER, 3.0),
        (ASK, f"{ANSWER} {ANSWER}", 4.0),
        ("order number please", "130 130 order", -2.0),  # keywords are no sentences
        ("", "", -2.0),
        (ASK, f"{ANSWER} Thank you. Please be patient. These things take time.", 5.0),  # a long turn
    ],
)
def test_points_of_a_dialogue(first, last, points):
    assert utility(MESSAGE, played(first, last)) == points


def test_a_dialogue_that_ended_in_its_first_turn_has_the_points_of_that_turn():
    assert utility(MESSAGE, [{"role": "assistant", "content": ASK}]) == 2.0


def test_every_request_is_understood_and_its_number_is_only_in_the_second_message():
    requests = list(dialogues.requests(seed=5, count=300))
    assert {request.issue for request in requests} == set(dialogues.ISSUES)
    for request in requests:
        assert issue_of(request.text) == request.issue
        assert request.number in request.answer
        assert request.number not in request.text


def test_the_grammar_writes_only_sentences_that_have_points_of_their_own():
    """Otherwise the base model would be taught sentences that count as unknown."""
    (request,) = dialogues.requests(seed=1, count=1)
    points = {"ask": 2.0, "promise": -1.0, "right": -1.0, "wrong": -1.0, "evasion": 0.0, "rude": -2.0}
    assert points.keys() == dialogues.FIRST.keys() | dialogues.SECOND.keys()
    for kind, expected in points.items():
        for seed in range(20):
            said = dialogues.sentence(request, kind, Random(seed))
            assert utility(request.text, [{"role": "assistant", "content": said}]) == expected, said


@pytest.mark.slow
def test_imported_dialogues_are_of_all_qualities_and_repeat_the_customers_line():
    rows = list(islice(dialogue_rows(), 100))
    points = [utility(row["prompt"], one["turns"]) for row in rows for one in row["completions"]]
    assert min(points) <= -4.0 and max(points) == 6.0
    for row in rows:
        assert len(row["completions"]) >= 2
        assert {one["turns"][1]["content"] for one in row["completions"]} == set(row["metadata"]["user_turns"])


def test_the_base_model_learns_both_turns_of_the_support():
    roles = [[message["role"] for message in row["messages"]] for row in islice(dialogue_demonstrations(), 4)]
    assert roles == [["user"], ["user", "assistant", "user"]] * 2


def test_annotators_rank_dialogues_by_the_points_of_their_turns():
    good, bad = played(ASK, ANSWER), played(ASK, "Do not write again.")
    exact = Annotator(1, noise=0.0, min_noise=1e-9, utility=DIALOGUE.utility)
    assert exact.rank(MESSAGE, ["a", "b", ASK], [bad, good, None]) == [3, 1, 2]


def test_replies_have_the_points_that_they_had():
    message, reply = "My kettle arrived broken.", "I am sorry. We will replace your damaged kettle."
    turns = [{"role": "assistant", "content": reply}]
    assert SUPPORT.utility(message, turns) == utility_of_reply(message, reply)
