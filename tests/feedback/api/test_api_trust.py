"""Reliability, flags and whether labels can be trusted, over HTTP."""

import json

import pytest

from feedback.export import ranking_record
from feedback.models import Project
from feedback.quality import reliability
from tests.factories import URL, membership, person
from tests.feedback.test_reliability import careful, rank_all

pytestmark = [pytest.mark.slow, pytest.mark.django_db]


@pytest.fixture
def rankings_by_four(project, work):
    work(15, wanted_rankings=4)
    for name in ("a", "b", "c", "opposite"):
        member = membership(person(project, name, "annotator"), project)
        rank_all(member, careful if name != "opposite" else lambda size: careful(size)[::-1])


@pytest.fixture
def report(project, rankings_by_four):
    return reliability.report_at(project, ranking_record.sequence_cutoff(project))


def lines(response):
    return [json.loads(line) for line in b"".join(response.streaming_content).splitlines()]


def test_before_the_first_report_the_list_of_annotators_is_empty(as_manager, project):
    shown = as_manager.get(f"{URL}/reliability").json()
    assert shown == {"as_of": None, "estimated_at": None, "spread": None, "annotators": []}


def test_reliability_is_shown_with_names_intervals_and_its_moment(as_manager, report):
    shown = as_manager.get(f"{URL}/reliability").json()
    assert shown["as_of"] == report.until == 60
    assert [each["username"] for each in shown["annotators"]] == ["a", "b", "c", "opposite"]
    assert all(each["low"] <= each["reliability"] <= each["high"] for each in shown["annotators"])
    assert [each["is_adversarial"] for each in shown["annotators"]] == [False, False, False, True]
    assert as_manager.get(f"{URL}/reliability?as_of=60").json() == shown
    assert as_manager.get(f"{URL}/reliability?as_of=7").status_code == 404
    assert as_manager.get(f"{URL}/reliability?as_of=soon").status_code == 400


def test_trust_is_a_sentence_with_the_flags_behind_it(as_manager, report):
    shown = as_manager.get(f"{URL}/trust").json()
    assert {each["username"] for each in shown["flags"]} == {"opposite"}
    assert {each["sign"] for each in shown["flags"]} == {"opposite", "random_clicker"}
    assert shown["can_be_trusted"] is not True
    assert "50%" in shown["sentence"]  # three of six pairs of people agree


def test_labels_can_be_trusted_if_all_annotators_agree(as_manager, project, work):
    work(30, wanted_rankings=2)
    for name in ("a", "b"):
        rank_all(membership(person(project, name, "annotator"), project), careful)
    shown = as_manager.get(f"{URL}/trust").json()
    assert (shown["can_be_trusted"], shown["flags"]) == (True, [])
    assert shown["sentence"].startswith("Yes: two people agree on 100% of pairs")


def test_without_overlap_trust_is_unknown(as_manager, project, ann, work):
    work(3)
    rank_all(ann, careful)
    shown = as_manager.get(f"{URL}/trust").json()
    assert shown["can_be_trusted"] is None
    assert shown["sentence"].startswith("Unknown")


def test_an_export_weighted_by_reliability_can_be_repeated(as_manager, project, report, work):
    wanted = f"{URL}/preferences?format=rankings&weights=reliability"
    response = as_manager.get(wanted)
    assert response["Accord-Reliability-As-Of"] == "60"
    before = lines(response)
    assert {row["weight"] for row in before} != {1.0}
    work(30)
    rank_all(membership(person(project, "late", "annotator"), project), careful)
    reliability.refresh()
    later = as_manager.get(wanted)
    assert later["Accord-Reliability-As-Of"] == "90"
    again = lines(as_manager.get(f"{wanted}&reliability_as_of=60"))
    assert again[:60] == before
    assert as_manager.get(f"{wanted}&reliability_as_of=5").status_code == 404


def test_the_projects_setting_decides_the_weights_of_an_export(as_manager, project, report):
    plain = as_manager.get(f"{URL}/preferences?format=rankings")
    assert "Accord-Reliability-As-Of" not in plain
    assert {row["weight"] for row in lines(plain)} == {1.0}
    changed = as_manager.patch(URL, {"ranking_weights": "reliability"}, content_type="application/json")
    assert changed.json()["ranking_weights"] == "reliability"
    assert Project.objects.get(pk=project.pk).ranking_weights == "reliability"
    assert {row["weight"] for row in lines(as_manager.get(f"{URL}/preferences?format=rankings"))} != {1.0}
    assert {row["weight"] for row in lines(as_manager.get(f"{URL}/preferences?weights=equal"))} == {1.0}
    assert as_manager.get(f"{URL}/preferences?weights=heavy").status_code == 400
