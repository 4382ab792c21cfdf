"""Reading comprehension from the grammar: passages hold their answers, logs hold answers of all qualities."""

from random import Random

from training.demo.grammar.reading import QUESTIONS, logged_answer, readings
from training.learner.reward_terms import make_metric


def test_a_passage_holds_its_answer_and_every_question_is_asked():
    made = list(readings(3, 200))
    assert made == list(readings(3, 200)) and {one.question for one in made} == set(QUESTIONS.values())
    for one in made:
        assert one.answer and one.answer not in one.wrong and one.prompt.endswith(one.question)
        if one.question != QUESTIONS["issue"]:
            assert one.answer in one.passage


def test_logged_answers_are_right_partly_right_and_wrong():
    f1, random = make_metric("token_f1"), Random(1)
    scores = [f1(logged_answer(one, random), [one.answer]) for one in readings(3, 300)]
    assert 0.3 < sum(score == 1 for score in scores) / 300 < 0.5
    assert any(0 < score < 1 for score in scores) and any(score == 0 for score in scores)
