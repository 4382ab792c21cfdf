"""Texts of the demo's grammar: enough of them, always the same, and in good English."""

import re
from collections import Counter

import pytest

from training.demo import grammar


def test_thousands_of_messages_are_all_different():
    texts = [message.text for message in grammar.messages(seed=1, count=5000)]
    assert len(set(texts)) == 5000


def test_a_seed_always_writes_the_same_and_another_seed_something_else():
    first = list(grammar.demonstrations(seed=3, count=50))
    assert first == list(grammar.demonstrations(seed=3, count=50))
    assert first != list(grammar.demonstrations(seed=4, count=50))


def test_the_first_messages_do_not_depend_on_the_requested_number():
    assert list(grammar.messages(seed=1, count=20)) == list(grammar.messages(seed=1, count=200))[:20]


def test_every_issue_tone_product_and_name_occurs():
    written = list(grammar.messages(seed=1, count=3000))
    words = grammar.vocabulary()
    assert {message.issue for message in written} == set(words.issues)
    assert {message.tone for message in written} == {tone.name for tone in words.tones}
    assert {message.product for message in written} >= set(words.products)
    assert {message.name for message in written} >= set(words.names)


@pytest.mark.slow
def test_no_slot_is_left_open():
    texts = [text for message, reply in grammar.demonstrations(seed=2, count=3000) for text in (message.text, reply)]
    assert not [text for text in texts if "{" in text or "}" in text]


def test_a_message_contains_its_product_and_its_name():
    for message in grammar.messages(seed=5, count=1000):
        assert message.product in message.text
        assert message.name in message.text


def test_a_product_has_the_right_indefinite_article():
    words = grammar.vocabulary()
    assert not [product for product in words.products if product[0] in "aeiou"]
    texts = " ".join(
        text for message, reply in grammar.demonstrations(seed=2, count=1000) for text in (message.text, reply)
    )
    assert not re.findall(r"\ba [aeio]\w+|\ban [^aeiouh]\w+", texts)


@pytest.mark.slow
def test_sentences_begin_with_a_capital_and_end_with_a_mark():
    for _, reply in grammar.demonstrations(seed=6, count=1000):
        for paragraph in reply.split("\n\n"):
            assert paragraph[0].isupper() or paragraph[0] == '"'
            assert paragraph[-1] in ".,?!" or paragraph.endswith(("support team", "customer care"))
            assert "  " not in paragraph and ".." not in paragraph


@pytest.mark.slow
def test_replies_are_short_enough_to_rank_quickly():
    sizes = sorted(len(reply.split()) for _, reply in grammar.demonstrations(seed=7, count=2000))
    assert sizes[len(sizes) // 20] >= 8
    assert sizes[-len(sizes) // 20] <= 60
    assert 20 <= sizes[len(sizes) // 2] <= 35


@pytest.mark.slow
def test_replies_are_of_every_quality():
    replies = [reply for _, reply in grammar.demonstrations(seed=8, count=2000)]
    rude = sum("own problem" in reply or "Calm down" in reply for reply in replies)
    assert 50 < rude < 400
    assert len(set(replies)) > 1950


@pytest.mark.slow
def test_the_same_first_words_do_not_come_all_day():
    first_words = Counter(" ".join(reply.split()[:4]) for _, reply in grammar.demonstrations(seed=9, count=2000))
    assert first_words.most_common(1)[0][1] < 80


def test_a_reply_of_good_traits_refers_to_the_message():
    from random import Random

    message = grammar.Message("My kettle arrived broken.\n\nThanks, Maria", "broken_item", "kettle", "Maria", "calm")
    reply = grammar.reply(message, grammar.Traits(), Random(0))
    issue = grammar.vocabulary().issues["broken_item"]
    assert "Maria" in reply
    assert any(answer.replace("{product}", "kettle") in reply for answer in issue.answers)
