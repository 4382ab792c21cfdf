"""From a completion to its checkpoint, round, reward model and rankings, and back."""

import pytest

from feedback.models import Completion
from tests.factories import URL, client_of, membership, rank_by_position
from training.models import Round
from training.provenance import Provenance, provenance_of
from training.rounds import lifecycle, results

AT = "/projects/support"


@pytest.fixture
def finished(waiting, claim, project):
    """A finished round, whose checkpoint and base have answered one prompt."""
    (pk,) = project.prompts.order_by("pk").values_list("pk", flat=True)[:1]

    def answer(text):
        return {"prompt_id": pk, "text": text, "sampling": {"round": 1, "temperature": 0.7}}

    outcome = results.Outcome(
        model="/models/new",
        reward_model="/models/reward",
        samples=[answer("new one"), answer("new two")],
        baseline=[answer("old one")],
    )
    lifecycle.finish(claim, outcome)
    return Round.objects.get(pk=waiting.pk)


@pytest.mark.slow
def test_the_provenance_is_the_checkpoint_its_round_and_the_reward_model(finished, base):
    new, old = (provenance_of(Completion.objects.get(text=text)) for text in ("new one", "old one"))
    assert new == Provenance(finished.checkpoint, made_by=finished, reward_model_of=finished, written_in=finished)
    assert old == Provenance(base, made_by=None, reward_model_of=None, written_in=finished)
    imported = Completion.objects.filter(source__name="import").first()
    assert provenance_of(imported) == Provenance()


@pytest.mark.slow
def test_the_page_leads_to_the_round_and_the_rankings_and_the_checkpoint_leads_back(
    client, finished, project, annotator, manager
):
    completion = Completion.objects.get(text="new one")
    comparison = completion.items.get().comparison
    type(comparison).objects.filter(pk=comparison.pk).update(priority=9)
    rank_by_position(membership(annotator, project), list(range(1, comparison.size + 1)), comment="Clear and kind")
    client.force_login(manager)
    page = client.get(f"{AT}/data/completions/{completion.pk}/").content.decode()
    for part in (
        f"{AT}/rounds/1/",
        f"{AT}/data/comparisons/{comparison.pk}/#ranking-",
        "Clear and kind",
        "temperature",
    ):
        assert part in page, part
    checkpoint = client.get(f"{AT}/checkpoints/{finished.checkpoint.pk}/").content.decode()
    assert f"{AT}/data/completions/?source={completion.source.name}" in checkpoint
    assert f"{AT}/data/completions/?source={completion.source.name}" in client.get(f"{AT}/rounds/1/").content.decode()


@pytest.mark.slow
def test_the_api_has_the_same_provenance(finished, project, manager):
    completion = Completion.objects.get(text="new one")
    answer = client_of(manager).get(f"{URL}/data/completions/{completion.pk}").json()
    assert (answer["source_kind"], answer["checkpoint"]) == ("checkpoint", finished.checkpoint_id)
    assert (answer["made_by_round"], answer["reward_model_of_round"], answer["written_in_round"]) == (1, 1, 1)
    assert answer["sampling"]["temperature"] == 0.7
    assert [entry["rankings"] for entry in answer["compared"]] == [[]]
    imported = Completion.objects.filter(source__name="import").first()
    answer = client_of(manager).get(f"{URL}/data/completions/{imported.pk}").json()
    assert (answer["checkpoint"], answer["made_by_round"], answer["source_kind"]) == (None, None, "import")
