"""A person's right to see what is stored about them, and to leave."""

import json

import pytest
from django.apps import apps
from django.contrib.sessions.models import Session

from feedback import imports
from feedback.actions import demonstrations, erasure, pauses, rankings, reviews
from feedback.api.scopes import scope_of
from feedback.errors import Conflict, Forbidden
from feedback.export import ranking_record
from feedback.export.skips import skips
from feedback.models import ApiToken, Comparison, Completion, Demonstration, Membership, Ranking, Review, Skip, User
from feedback.queue import leases
from feedback.queue.blinding import comparison_number
from feedback.reports.own_data import own_data
from tests.factories import adjudicate, client_of, membership, person, rank_next

pytestmark = pytest.mark.django_db


def erase(user) -> User:
    erasure.erase(user, f"{user.username}-password")
    return User.objects.get(pk=user.pk)


@pytest.mark.slow
def test_rankings_leave_exports_and_a_reader_by_cursor_gets_retractions(project, work, ann, cole):
    made = work(3, wanted_rankings=2)
    for member in (ann, ann, cole):
        rank_next(member, comment="by " + member.user.username)
    before = list(ranking_record.rankings(project))
    cursor = before[-1]["sequence"]
    rank_next(ann)  # the reader has not seen it
    erase(ann.user)
    after = list(ranking_record.rankings(project, after=cursor))
    mine = [row for row in before if row["annotator"] == f"annotator-{ann.user_id}"]
    key = lambda row: (row["comparison_id"], row["annotator"])  # noqa: E731
    assert [(row["retracted"], key(row)) for row in after] == [("erased", key(row)) for row in mine]
    assert all(new["revision"] > old["revision"] for new, old in zip(after, mine, strict=True))
    (left,) = ranking_record.rankings(project)
    assert left["annotator"] == f"annotator-{cole.user_id}"
    assert [key(row) for row in ranking_record.rankings(project, until=cursor)] == [key(left)]  # the former range, too
    for comparison in Comparison.objects.filter(pk__in=[one.pk for one in made]):
        assert comparison.ranking_count == comparison.rankings.filter(is_live=True).count()
        assert comparison.open_slots == 2 - comparison.ranking_count


@pytest.mark.slow
def test_no_word_of_the_person_is_left_in_the_database(project, work, ann, mona, client):
    secret = "my-private-words"
    work(4)
    ann.user.first_name = ann.user.email = f"{secret}@example.org"
    ann.user.save()
    client.force_login(ann.user)
    client_of(ann.user)
    rank_next(ann, comment=secret)
    rankings.skip_comparison(ann, leases.lease_next(ann).pk, reason=secret)
    lease = leases.lease_next(ann)
    number = comparison_number(ann, lease.comparison_id)
    demonstrations.record_demonstration(ann, number, f"{secret} answer", place=0)
    reviews.return_ranking(
        mona, Ranking.objects.filter(annotator=ann.user, is_live=True).first().pk, reason="Look again."
    )
    pauses.pause(project, ann.user_id, mona.user)
    user = erase(ann.user)
    for model in apps.get_models():
        for row in model._base_manager.values():
            assert secret not in str(row), model
    assert (user.username, user.email, user.is_active) == (f"erased-{user.pk}", "", False)
    assert not user.has_usable_password()
    assert not (Session.objects.exists() or ApiToken.objects.filter(user=user).exists() or Skip.objects.exists())
    assert not Membership.objects.filter(user=user).exists()
    assert list(skips(project)) == []
    assert set(Review.objects.values_list("reason", flat=True)) == {"–"}
    assert Comparison.objects.get(pk=lease.comparison_id).open_slots == 1
    assert client.get("/account/").status_code == 302


@pytest.mark.full
def test_a_text_ranked_by_others_stays_without_its_author(project, ann, cole):
    (ids,) = imports.add_prompts(project, [{"prompt": "q", "completions": ["a", "b"]}]).completion_ids
    Completion.objects.filter(pk=ids[0]).update(author=ann.user)
    imports.add_comparisons(project, [ids])
    rank_next(cole)
    erase(ann.user)
    completion = Completion.objects.get(pk=ids[0])
    assert (completion.text, completion.author) == ("a", None)
    assert not Demonstration.objects.exists()


@pytest.mark.full
def test_rankings_overruled_by_an_erased_reviewer_count_again(project, work, ann):
    (comparison,) = work(1)
    ranking = rank_next(ann)
    rita = membership(person(project, "rita", "reviewer"), project)
    adjudicate(rita, comparison, [2, 1])
    erase(rita.user)
    (row,) = ranking_record.rankings(project)
    assert (row["annotator"], row["ranks"]) == (f"annotator-{ann.user_id}", ranking.ranks)
    comparison.refresh_from_db()
    assert (comparison.adjudicated_at, comparison.ranking_count) == (None, 1)


def test_a_wrong_password_and_the_last_manager_erase_nothing(project, mona, ann):
    with pytest.raises(Forbidden):
        erasure.erase(ann.user, "wrong")
    with pytest.raises(Conflict):
        erase(mona.user)
    project.memberships.filter(user=ann.user).update(role="manager")
    mona.user.is_superuser = True
    mona.user.save()
    with pytest.raises(Conflict):
        erase(mona.user)
    assert User.objects.filter(username__in=["mona", "ann"], is_active=True).count() == 2


@pytest.mark.slow
def test_a_person_gets_all_stored_data_and_nothing_that_reveals_gold(project, work, ann, client):
    (gold,) = work(1)
    Comparison.objects.filter(pk=gold.pk).update(gold_ranks=[1, 2], wanted_rankings=100, open_slots=100)
    project.qualification_items, project.qualification_percent, project.attributes = 1, 0, ["honest"]
    project.save()
    work(1)
    rank_next(ann, [2, 1], comment="mine", ratings={"honest": [5, None]})
    rank_next(ann)
    client.force_login(ann.user)
    answer = client.get("/account/data/")
    data = json.loads(answer.content)
    assert data["rankings"][0] | {"created_at": "", "seconds": 0} == {
        "project": "support", "comparison": comparison_number(ann, gold.pk), "ranks": [2, 1],
        "ratings": {"honest": [5, None]}, "spans": [], "revision": 1, "is_live": True, "standing": "counts",
        "strength": None, "flags": [], "comment": "mine", "seconds": 0, "created_at": "",
    }  # fmt: skip
    assert len(data["rankings"]) == 2
    assert data["account"]["username"] == "ann"
    assert "attachment" in answer["Content-Disposition"]
    assert "gold" not in answer.content.decode()
    assert "qualification" not in answer.content.decode()
    of_api = client_of(ann.user).get("/api/v1/account/data").json()["rankings"]
    assert [row["comment"] for row in of_api] == [row["comment"] for row in data["rankings"]]
    assert len(own_data(ann.user)["tokens"]) == 1


@pytest.mark.slow
def test_the_page_erases_only_with_the_password_and_signs_out(project, ann, client):
    client.force_login(ann.user)
    assert "Models keep what they have learned" in client.get("/account/erase/").content.decode()
    assert b"not your password" in client.post("/account/erase/", {"password": "wrong"}).content
    assert client.post("/account/erase/", {"password": "ann-password"}).url == "/sign-in/"
    assert User.objects.get(pk=ann.user_id).username == f"erased-{ann.user_id}"
    assert client.get("/account/").status_code == 302


def test_the_api_erases_with_the_password_and_only_for_a_token_without_scopes(project, ann):
    api = client_of(ann.user)
    assert scope_of("api-account-erase", "POST") is scope_of("api-account-data", "GET") is None
    assert api.post("/api/v1/account/erase", {"password": "wrong"}, format="json").status_code == 403
    assert api.post("/api/v1/account/erase", {"password": "ann-password"}, format="json").status_code == 204
    assert api.get("/api/v1/account/data").status_code == 401
