"""Results of a finished round: completions, comparisons and a checkpoint, in one transaction."""

import json

import pytest

from feedback import imports
from feedback.actions import members
from feedback.errors import AccordError
from feedback.models import Comparison, Completion, Import, Prompt
from feedback.queue import leases
from training.learner.runtime.jobdir import JobDirectory
from training.models import Checkpoint, Round
from training.reports import details_sentences
from training.rounds import lifecycle, results
from training.rounds.start import start_round, start_sampling

pytestmark = pytest.mark.slow


def outcome_of(round_, samples, baseline=()):
    """Return an outcome as Outcome.read does, with so many texts for each prompt."""
    return results.Outcome(
        model="/models/new",
        reward_model="/models/reward",
        samples=[{"prompt_id": pk, "text": text, "sampling": {}} for pk, texts in samples for text in texts],
        baseline=[{"prompt_id": pk, "text": text, "sampling": {}} for pk, texts in baseline for text in texts],
    )


@pytest.fixture
def prompts(project, comparisons):
    return list(Prompt.objects.filter(project=project).order_by("pk").values_list("pk", flat=True))


def test_a_round_ends_with_its_checkpoint_completions_and_comparisons(waiting, claim, prompts, base):
    lifecycle.finish(claim, outcome_of(waiting, [(prompts[0], "abcdef"), (prompts[1], "gh")], [(prompts[0], "x")]))
    done = Round.objects.get(pk=waiting.pk)
    assert (done.status, done.stage, done.checkpoint.path) == ("finished", "comparisons", "/models/new")
    assert (done.checkpoint.parent, done.checkpoint.reward_model_path) == (base, "/models/reward")
    written = Comparison.objects.filter(items__completion__source=done.checkpoint.source).distinct()
    assert sorted(comparison.size for comparison in written) == [2, 2, 4]
    assert Completion.objects.filter(source=base.source).count() == 1
    assert not Comparison.objects.filter(items__completion__source=base.source).exists()


def test_completions_of_prompts_whose_import_was_undone_meanwhile_are_dropped(waiting, claim, prompts, project, base):
    with imports.record_import(project, Import.How.COMMAND) as record:
        gone = imports.add_prompts(project, [{"prompt": "undone"}], made_by_import=record).prompt_ids[0]
    imports.undo_import(record, None)
    lifecycle.finish(claim, outcome_of(waiting, [(gone, "xy"), (prompts[0], "ab")], [(gone, "z"), (prompts[0], "c")]))
    done = Round.objects.get(pk=waiting.pk)
    assert done.status == "finished"
    assert sorted(done.checkpoint.source.completions.values_list("text", flat=True)) == ["a", "b"]
    assert base.source.completions.get().text == "c"


def test_the_next_lease_shows_completions_of_the_round(waiting, claim, prompts, project, colleague):
    lifecycle.finish(claim, outcome_of(waiting, [(prompts[0], "ab")]))
    lease = leases.lease_next(members.membership_of(colleague, project.slug))
    assert sorted(lease.comparison.texts()) == ["a", "b"]


def test_older_comparisons_stay_in_the_queue_behind_the_new_ones(waiting, claim, prompts, project, colleague):
    before = Comparison.objects.filter(project=project).count()
    lifecycle.finish(claim, outcome_of(waiting, [(prompts[0], "ab")]))
    assert Comparison.objects.filter(project=project).count() == before + 1


def test_the_same_text_twice_is_one_completion_and_no_comparison(waiting, claim, prompts):
    before = Comparison.objects.count()
    lifecycle.finish(claim, outcome_of(waiting, [(prompts[0], ["same", "same"]), (prompts[1], ["one", "two", "one"])]))
    new = Comparison.objects.order_by("-pk")[: Comparison.objects.count() - before]
    assert [comparison.size for comparison in new] == [2]


def test_an_even_share_of_the_new_comparisons_gets_an_extra_ranking(project, base, rankings, manager, prompts):
    started = start_round(project, manager, {"round": {"extra_ranking_share": 0.34}})
    before = set(Comparison.objects.values_list("pk", flat=True))
    lifecycle.finish(lifecycle.claim(started.pk, "gpu-1:100"), outcome_of(started, [(pk, "ab") for pk in prompts[:6]]))
    new = Comparison.objects.exclude(pk__in=before)
    assert sorted(new.values_list("wanted_rankings", "open_slots")) == [(1, 1)] * 4 + [(2, 2)] * 2
    again = {prompts.index(pk) for pk in new.filter(wanted_rankings=2).values_list("prompt_id", flat=True)}
    assert again == {2, 5}


def test_the_end_of_a_round_is_written_completely_or_not_at_all(waiting, claim, prompts):
    with pytest.raises(AccordError):
        lifecycle.finish(claim, outcome_of(waiting, [(prompts[0], "ab"), (10**9, "c")]))  # no such prompt
    assert Round.objects.get(pk=waiting.pk).status == "running"
    assert Checkpoint.objects.count() == 1
    assert not Completion.objects.filter(text="a").exists()


def test_a_round_that_was_cancelled_or_lost_in_the_last_moment_writes_nothing(waiting, claim, prompts):
    lifecycle.request_cancel(waiting)
    with pytest.raises(lifecycle.Cancelled):
        lifecycle.finish(claim, outcome_of(waiting, [(prompts[0], "ab")]))
    lifecycle.cancel(claim)
    with pytest.raises(lifecycle.ClaimLost):
        lifecycle.finish(claim, outcome_of(waiting, [(prompts[0], "ab")]))
    assert Checkpoint.objects.count() == 1


def test_a_round_is_finished_once(waiting, claim, prompts):
    lifecycle.finish(claim, outcome_of(waiting, [(prompts[0], "ab")]))
    with pytest.raises(lifecycle.ClaimLost):
        lifecycle.finish(claim, outcome_of(waiting, [(prompts[0], "cd")]))
    assert Checkpoint.objects.count() == 2


def test_a_sampling_round_writes_for_its_base_and_makes_no_checkpoint(project, base, comparisons, prompts):
    sampling = start_sampling(project, None)
    claim = lifecycle.claim(sampling.pk, "gpu-1:100")
    lifecycle.finish(claim, outcome_of(sampling, [(prompts[0], "ab")]))
    done = Round.objects.get(pk=sampling.pk)
    assert (done.status, done.checkpoint) == ("finished", None)
    assert set(base.source.completions.values_list("text", flat=True)) == {"a", "b"}


def test_any_text_of_a_model_can_be_stored(waiting, tmp_path, prompts):
    (tmp_path / "samples").mkdir()
    sample = {"prompt_id": prompts[0], "index": 0, "text": "a\0b", "ended": True, "tokens": 3, "score": None}
    JobDirectory(tmp_path / "samples").write_rows("samples.jsonl", iter([sample]))
    (row,) = results.Outcome.read(waiting, tmp_path).samples
    assert row["text"] == "ab"
    assert row["sampling"] == {
        "temperature": 1.0,
        "top_p": 1.0,
        "seed": 1,
        "round": 1,
        "index": 0,
        "ended": True,
        "tokens": 3,
    }
    assert json.dumps(row)


def test_near_duplicates_are_replaced_by_spare_completions_or_counted(project, base, rankings, manager, prompts):
    settings = {"round": {"comparison_size": 3, "spare_completions": 1}}
    started = start_round(project, manager, settings)
    assert started.settings["sample"]["completions_per_prompt"] == 4
    long = "a" * 100
    texts = [
        (prompts[0], [long, long[:-4], "one", "two"]),  # the second is replaced by the spare completion
        (prompts[1], ["caf\u00e9", "cafe\u0301", "cafe\u0301 ", "tea"]),  # two are left
        (prompts[2], ["same", "same", "same", "same"]),  # nothing to compare
        (prompts[3], ["one", "two", "three", "four"]),  # the spare completion is not shown
    ]
    before = set(Comparison.objects.values_list("pk", flat=True))
    lifecycle.finish(lifecycle.claim(started.pk, "gpu-1:100"), outcome_of(started, texts))
    new = Comparison.objects.exclude(pk__in=before).order_by("prompt_id")
    assert [sorted(comparison.texts()) for comparison in new] == [
        sorted([long, "one", "two"]),
        sorted(["caf\u00e9", "tea"]),
        sorted(["one", "two", "three"]),
    ]
    done = Round.objects.get(pk=started.pk)
    assert done.results["comparisons"] == {"near_duplicates": 6, "smaller": 1, "dropped": 1}
    assert "6 completions are left out" in details_sentences(done)
