"""A round's programs run for real, on a model of a few thousand parameters."""

import pytest

from feedback.models import Comparison
from tests.training import tiny
from training import rounds
from training.launch import turn
from training.models import Round

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True)]


def test_a_round_turns_the_loop_once(project, tiny_base, rankings, manager):
    before = Comparison.objects.count()
    started = rounds.start(project, manager, tiny.SETTINGS)
    turn.run(started.pk)

    done = Round.objects.get(pk=started.pk)
    assert (done.error, done.log_tail) == ("", "")
    assert (done.status, done.stage) == ("finished", "comparisons")
    assert set(done.results) == {"reward", "policy", "samples", "baseline"}
    assert set(done.metrics.values_list("job", flat=True)) >= {"reward", "policy"}
    assert list(done.metrics.filter(job="policy").values_list("step", flat=True)) == [1, 2]

    made = done.checkpoint
    assert (made.kind, made.parent, made.is_served) == ("round", tiny_base, False)
    assert made.source.name == "round-0001"
    assert 6 <= made.source.completions.count() <= 18  # of six prompts, three each; the same text counts once
    assert {row["round"] for row in made.source.completions.values_list("sampling", flat=True)} == {1}
    assert tiny_base.source.completions.count() == 2  # the base beside it, on two of the prompts
    assert before < Comparison.objects.count() <= before + 6


def test_a_program_that_refuses_its_input_leaves_its_sentence(project, tiny_base, comparisons):
    settings = {**tiny.SETTINGS, "common": {"max_prompt_tokens": 2, "overlong_prompts": "refuse"}}
    started = rounds.start_sampling(project, None, settings)
    turn.run(started.pk)
    failed = Round.objects.get(pk=started.pk)
    assert (failed.status, failed.stage) == ("failed", "samples")
    assert "more than max_prompt_tokens" in failed.error
    assert failed.error.startswith("The sample program failed: ")
    assert "error: " in failed.log_tail
