"""The report on a round's reward model, its page and API, and the list of surprising rankings."""

import itertools
import json
import re

import pytest

from feedback import imports
from feedback.actions import review_undo, reviews
from feedback.actions.rankings import revise_ranking
from feedback.errors import Conflict
from feedback.models import Ranking
from tests.factories import URL, adjudicate, client_of, membership, person, rank_next
from tests.training.scored_rounds import report_round, write_job
from training.models import RewardReport, SurprisingRanking
from training.reward_reports import record
from training.reward_reports.surprising import keep, surprising
from training.rounds import lifecycle
from training.rounds.start import start_round

PAGE, LIST = "/projects/support/reward-model/", "/projects/support/review/surprising/"

pytestmark = [pytest.mark.django_db, pytest.mark.slow]


@pytest.fixture
def ranked(project, annotator, colleague):
    """12 comparisons of held-out and training prompts, each ranked by two people."""
    rows = [
        {
            "prompt": f"Question {number}",
            "completions": [{"text": f"{place} to {number}", "source": f"source-{place}"} for place in range(3)],
        }
        for number in range(12)
    ]
    ids = imports.add_prompts(project, rows, compare=True).prompt_ids
    project.prompts.update(split="train")
    project.prompts.filter(pk__in=ids[1::2]).update(split="held_out")
    project.comparisons.update(wanted_rankings=2, open_slots=2)
    for user in (annotator, colleague):
        member = membership(user, project)
        while rank_next(member):
            pass


@pytest.fixture
def reported(ranked, claim, project, tmp_path):
    """The rows of the rankings; the highest surprise is that of the last ranking, and so on downwards."""
    rows = list(Ranking.objects.filter(project=project).order_by("pk").values_list("pk", flat=True))
    return report_round(claim, project, tmp_path / "reward", {pk: number / 10 for number, pk in enumerate(rows)})


@pytest.fixture
def rita(project):
    return membership(person(project, "rita", "reviewer"), project)


def text_of(response):
    assert response.status_code == 200
    return " ".join(re.sub(r"<[^>]+>", " ", response.content.decode()).split())


def listed(project):
    return list(surprising(project).values_list("ranking_id", flat=True))


def test_the_page_shows_figures_computed_from_the_scores(client, manager, project, reported, claim, tmp_path):
    client.force_login(manager)
    page = text_of(client.get(PAGE))
    right = total = agreed = shared = 0
    lines = [json.loads(line) for line in (tmp_path / "reward" / "scored_rankings.jsonl").read_text().splitlines()]
    held_out = [(row, line) for row, line in zip(reported, lines, strict=True) if "scores" in line]
    for row, line in held_out:
        for i, j in itertools.permutations(range(3), 2):
            if row["ranks"][i] < row["ranks"][j]:
                total += 1
                right += line["scores"][i] > line["scores"][j]
    by_comparison = {}
    for row, _line in held_out:
        by_comparison.setdefault(row["comparison_id"], []).append(row["ranks"])
    for one, other in (ranks for ranks in by_comparison.values() if len(ranks) == 2):
        for i, j in itertools.combinations(range(3), 2):
            if one[i] != one[j] and other[i] != other[j]:
                shared += 1
                agreed += (one[i] < one[j]) == (other[i] < other[j])
    assert total >= 36 and shared >= 18
    assert f"Reward model pairs that it orders as the annotator did {round(100 * right / total)} %" in page
    assert f"Two people, on the same comparisons of one another {round(100 * agreed / shared)} %" in page
    assert "Best possible accuracy of any model that predicts one person, at this agreement 86 %" in page
    figures = RewardReport.objects.get().figures
    assert figures["accuracy"]["value"] == pytest.approx(right / total)
    assert figures["agreement"]["value"] == pytest.approx(agreed / shared)
    assert {one["source"] for one in figures["histogram"]["sources"]} >= {"source-0", "source-1", "source-2"}
    mistake = figures["mistakes"][0]
    assert f"/projects/support/review/{mistake['comparison']}/" in client.get(PAGE).content.decode()


def test_without_a_report_the_page_and_the_list_say_what_comes(client, manager, project):
    client.force_login(manager)
    assert "No report yet" in text_of(client.get(PAGE))
    assert "Nothing surprising" in text_of(client.get(LIST))
    assert client.get(PAGE, {"round": "7"}).status_code == 404
    assert client.get(PAGE, {"round": "x"}).status_code == 404


def test_without_held_out_rankings_the_page_still_lists_surprising_ones(client, manager, project, claim, tmp_path):
    project.prompts.update(split="train")
    report_round(claim, project, tmp_path / "reward")
    client.force_login(manager)
    page = text_of(client.get(PAGE))
    assert "No held-out prompt has a ranking with a preference" in page
    assert "Rankings that may be wrong" in page and "Calibration" not in page


def test_the_list_has_the_quarter_of_rankings_with_the_highest_surprise(client, rita, project, reported):
    newest = [row["ranking_id"] for row in sorted(reported, key=lambda row: -row["ranking_id"])]
    assert listed(project) == newest[: -(-len(reported) // 4)]
    client.force_login(rita.user)
    first = Ranking.objects.get(pk=newest[0])
    page = client.get(LIST).content.decode()
    assert f'href="/projects/support/review/{first.comparison_id}/?surprising={first.pk}"' in page
    assert client.get(PAGE).status_code == 403  # the figures are for managers


def test_a_ranking_leaves_the_list_once_somebody_has_decided(rita, project, reported, annotator):
    ids = listed(project)
    rows = {row.pk: row for row in Ranking.objects.filter(pk__in=ids)}
    discarded, returned, kept, settled, revised = ids[:5]
    assert len({rows[pk].comparison_id for pk in ids[:5]}) == 5
    reviews.discard(rita, discarded, reason="wrong way round")
    reviews.return_ranking(rita, returned, reason="look again")
    decision = keep(rita, rows[kept].comparison_id)
    adjudicate(rita, rows[settled].comparison, [1, 2, 3])
    owner = membership(rows[revised].annotator, project)
    revise_ranking(owner, revised, [3, 2, 1], idempotency_key="5f0c4d26-8f4f-4f7e-9a53-1f4f5a3b2c10", seconds=2.0)
    left = listed(project)
    assert left == ids[5:]
    assert Ranking.objects.get(pk=kept).standing == "counts"
    review_undo.undo(rita, decision.pk)
    assert listed(project) == sorted([kept, *left], key=ids.index)


@pytest.mark.full
def test_a_comparison_that_is_not_on_the_list_cannot_be_kept(rita, project, reported):
    other = Ranking.objects.get(pk=reported[0]["ranking_id"]).comparison_id
    with pytest.raises(Conflict, match="list of surprising rankings"):
        keep(rita, other)
    comparison = Ranking.objects.get(pk=listed(project)[0]).comparison_id
    keep(rita, comparison)
    with pytest.raises(Conflict):
        keep(rita, comparison)


def test_a_reviewer_keeps_a_ranking_on_the_page_of_its_comparison(client, rita, project, reported):
    client.force_login(rita.user)
    ranking = Ranking.objects.get(pk=listed(project)[0])
    comparison, name = ranking.comparison_id, ranking.annotator.username
    case = client.get(f"/projects/support/review/{comparison}/?surprising={ranking.pk}").content.decode()
    assert f"contradict that of {name}." in case
    action = f"/projects/support/review/surprising/{comparison}/keep/"
    assert f'formaction="{action}"' in case and f'href="{LIST}"' in case
    assert action not in client.get(f"/projects/support/review/{comparison}/").content.decode()
    assert client.post(action).url == LIST
    assert comparison not in [one.ranking.comparison_id for one in surprising(project)]


def test_the_api_has_the_report_and_the_list(manager, rita, project, reported):
    report = client_of(manager).get(f"{URL}/rounds/1/reward-model").data
    stored = RewardReport.objects.get().figures
    assert report["round"] == 1 and report["best_possible_accuracy"] == 0.86
    for name in ("accuracy", "agreement", "calibration", "slices", "ties", "histogram", "mistakes"):
        assert json.loads(json.dumps(report[name])) == stored[name], name
    assert client_of(manager).get(f"{URL}/rounds/2/reward-model").status_code == 404
    reviewer = client_of(rita.user)
    assert reviewer.get(f"{URL}/rounds/1/reward-model").status_code == 403
    ids = listed(project)
    pages = [
        reviewer.get(f"{URL}/review/surprising", {"limit": 4, "offset": n}).data for n in range(0, len(ids) + 1, 4)
    ]
    assert [row["ranking"] for page in pages for row in page] == ids
    assert [row["place"] for row in pages[0]] == [1, 2, 3, 4]
    kept = reviewer.post(f"{URL}/review/surprising/{pages[0][0]['comparison']}/keep")
    assert (kept.status_code, kept.data["kind"]) == (201, "keep")
    assert reviewer.get(f"{URL}/review/surprising").data[0]["ranking"] == ids[1]


@pytest.mark.full
def test_the_file_is_the_answer_of_the_api(client, manager, reported):
    client.force_login(manager)
    file = client.get("/projects/support/rounds/1/reward-model.json")
    assert json.loads(file.content) == json.loads(client_of(manager).get(f"{URL}/rounds/1/reward-model").content)
    assert 'filename="support-reward-model-1.json"' in file["Content-Disposition"]


@pytest.mark.full
def test_only_the_newest_list_is_kept_and_a_job_that_ends_again_replaces_its_report(
    project, manager, claim, reported, tmp_path
):
    record.record(claim, tmp_path / "reward")
    assert RewardReport.objects.count() == 1
    lifecycle.fail(claim, "stopped")
    second = lifecycle.claim(start_round(project, manager).pk, "gpu-1:100")
    ids = [row["ranking_id"] for row in reported]
    report_round(second, project, tmp_path / "second", {ids[0]: 5.0})
    assert RewardReport.objects.count() == 2
    assert set(SurprisingRanking.objects.values_list("report__round__number", flat=True)) == {2}
    assert listed(project)[0] == ids[0]


@pytest.mark.full
def test_a_worker_that_lost_its_claim_and_a_job_of_an_earlier_version_store_nothing(project, claim, ranked, tmp_path):
    record.record(claim, tmp_path)  # has no scored rankings
    lifecycle.release(claim)
    lifecycle.claim(claim.round_id, "gpu-2:200")
    with pytest.raises(lifecycle.ClaimLost):
        record.record(claim, write_job(tmp_path / "reward", []))
    assert not RewardReport.objects.exists()


@pytest.mark.full
def test_rankings_that_were_deleted_while_the_program_ran_are_left_out(project, claim, ranked, tmp_path):
    rows = report_round(claim, project, tmp_path / "reward")
    gone = surprising(project).first().ranking
    project.comparisons.filter(pk=gone.comparison_id).delete()
    record.record(claim, write_job(tmp_path / "reward", rows))
    assert gone.pk not in listed(project)
    assert surprising(project).first().place == 1
