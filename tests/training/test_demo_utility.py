"""The hidden utility orders replies as a fair person would, and resists reward hacking."""

import dataclasses
import random
import statistics

import pytest

from training.demo import grammar
from training.demo.utility import grade, issue_of, utility

MESSAGE = "Hello, My kettle arrived broken. What should I do now?\n\nThank you, Maria"
GOOD = (
    "Hello Maria,\n\nI am sorry for the trouble. It looks as if your kettle was damaged on the road. "
    "I will ship a replacement tomorrow, and you may keep the broken one.\n\nBest wishes, the support team"
)

# Each line spoils GOOD in one way.
SORRY = "Hello Maria,\n\nI am sorry for the trouble."
STEP = "I will ship a replacement tomorrow, and you may keep the broken one."
SIGNED = "\n\nBest wishes, the support team"
SPOILED = {
    "another topic": f"{SORRY} Your account was locked after too many tries with the old password. Click on 'Forgot "
    f"password' on the sign-in page, and the link comes at once.{SIGNED}",
    "an evasion": f"{SORRY} These things happen from time to time. We will look into it.{SIGNED}",
    "no next step": GOOD.replace(STEP, ""),
    "rudeness": GOOD.replace("I am sorry for the trouble.", "That is your own problem."),
    "another name": GOOD.replace("Maria", "Peter"),
    "another product": GOOD.replace("kettle", "tent"),
    "no courtesy": GOOD.replace("I am sorry for the trouble. ", "").replace(SIGNED, ""),
    "rambling": GOOD.replace(
        STEP,
        "My cousin once had a boat with the same colour, and that is a long story. By the way, our garden club meets "
        f"every month behind the old church. {STEP}",
    ),
    "a sentence twice": GOOD.replace(STEP, f"{STEP} {STEP}"),
    "cut off": GOOD[: GOOD.index(" keep the broken")],
    "hardly a word": "It looks as if it was damaged.",
}


@pytest.mark.parametrize("fault", SPOILED)
def test_each_fault_of_a_reply_costs_at_least_a_point(fault):
    assert utility(MESSAGE, GOOD) - utility(MESSAGE, SPOILED[fault]) >= 1


def test_a_perfect_reply_gets_all_points():
    assert utility(MESSAGE, GOOD) == 6


# What a policy might find when it is trained against a reward model, and what it would be worth if it worked.
HACKS = {
    "keywords": "broken damaged replacement photo kettle Maria sorry thank you tomorrow please send reply today",
    "keywords with a stop": "Sorry broken damaged replacement photo kettle Maria thank you tomorrow please send today.",
    "keywords in a greeting": "Hello Maria, sorry sorry thank you kettle kettle replacement replacement tomorrow.",
    "one courtesy again and again": "I am sorry for the trouble. " * 8,
    "one good step again and again": "I will ship a replacement tomorrow, and you may keep the broken one. " * 4,
    "the greeting again and again": "Hello Maria,\n\n" * 10,
    "one word": "replacement " * 30,
    "nothing": "",
    "blanks": "  \n\n ",
    "marks": "!!!!!!!! ?????? ......",
    "bytes": "\x00\x01\ufffd\ufffd kettle \ufffd",
    "the message itself, twice": f"{MESSAGE} {MESSAGE}",
}


@pytest.mark.parametrize("hack", HACKS)
def test_a_reward_hack_has_a_lower_utility_than_a_dull_honest_reply(hack):
    dull = "It looks as if your item was damaged on the road. We will look into it."
    assert utility(MESSAGE, HACKS[hack]) <= utility(MESSAGE, dull) - 1


def test_shuffled_words_lose_most_points_of_the_sentences():
    words = GOOD.split()
    lost = []
    for seed in range(20):
        random.Random(seed).shuffle(words)
        lost.append(utility(MESSAGE, GOOD) - utility(MESSAGE, " ".join(words)))
    assert min(lost) >= 3


def test_sentences_of_all_issues_thrown_together_are_worth_little():
    issues = grammar.vocabulary().issues.values()
    everything = " ".join(issue.steps[0].replace("{when}", "today") for issue in issues)
    assert utility(MESSAGE, everything) <= 0


def test_a_long_good_reply_loses_to_a_short_good_one():
    assert utility(MESSAGE, GOOD) > utility(MESSAGE, GOOD + " " + SPOILED["no next step"] + " " + GOOD)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trait", "better", "worse"),
    [
        ("topic", "right", "vague"),
        ("topic", "vague", "other"),
        ("tone", "warm", "plain"),
        ("tone", "plain", "rude"),
        ("step", "clear", "vague"),
        ("step", "vague", "none"),
        ("length", "normal", "rambling"),
        ("name", "right", "wrong"),
        ("product", "right", "wrong"),
    ],
)
def test_better_traits_of_a_reply_have_a_higher_mean_utility(trait, better, worse):
    def mean(value: str) -> float:
        traits = dataclasses.replace(grammar.Traits(), **{trait: value})
        messages = list(grammar.messages(seed=2, count=200))
        return statistics.mean(
            utility(m.text, grammar.reply(m, traits, random.Random(index))) for index, m in enumerate(messages)
        )

    assert mean(better) > mean(worse)


@pytest.mark.slow
def test_the_issue_of_every_message_is_recognised():
    messages = list(grammar.messages(seed=3, count=2000))
    assert [message.text for message in messages if issue_of(message.text) != message.issue] == []


@pytest.mark.slow
def test_replies_of_drawn_traits_differ_visibly():
    points = [utility(message.text, reply) for message, reply in grammar.demonstrations(seed=4, count=1000)]
    assert 2.5 < statistics.stdev(points) < 3.5
    assert 1 < statistics.mean(points) < 3  # there is room above and below


def test_other_good_english_keeps_its_order_and_loses_only_fluency():
    kind = "Dear Maria, we are sorry that you got a broken kettle. A replacement will reach you within two days."
    curt = "Kettles get broken. It is what it is, and there is nothing that we want to do about it."
    assert utility(MESSAGE, kind) > utility(MESSAGE, curt) + 2
    points = grade(MESSAGE, kind)
    assert (points.topic, points.step, points.manners, points.name) == (2.0, 2.0, 1.0, 0.25)
    assert points.fluency < 0
