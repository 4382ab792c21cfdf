"""Access by role: strangers learn nothing, annotators do not manage, a wrong key is refused."""

from uuid import uuid4

import pytest
from django.urls import reverse

from feedback.actions.tokens import digest_of, issue_token
from feedback.api.urls import urlpatterns
from feedback.models import ApiToken
from tests.factories import URL, client_of

pytestmark = pytest.mark.django_db

VERBS = {
    "api-projects": ("get", "post"),
    "api-project": ("get", "patch"),
    "api-members": ("get", "post"),
    "api-member": ("get", "patch", "delete"),
    "api-invitations": ("get", "post"),
    "api-invitation": ("get", "delete"),
    "api-webhooks": ("get", "post"),
    "api-webhook": ("get", "patch", "delete"),
    "api-webhook-rotate": ("post",),
    "api-webhook-test": ("post",),
    "api-webhook-deliveries": ("get",),
    "api-webhook-redeliver": ("post",),
    "api-audit": ("get",),
    "api-site-audit": ("get",),
    "api-routing": ("get", "patch"),
    "api-account-data": ("get",),
    "api-account-erase": ("post",),
    "api-tokens": ("get", "post"),
    "api-token": ("get", "delete"),
    "api-token-rotate": ("post",),
    "api-leases": ("post",),
    "api-lease": ("delete",),
    "api-lease-renew": ("post",),
    "api-lease-rank": ("post",),
    "api-lease-skip": ("post",),
    "api-rankings": ("get",),
    "api-revise": ("post",),
    "api-undo": ("post",),
    "api-prompts": ("post",),
    "api-completions": ("post",),
    "api-comparisons": ("post",),
    "api-gold": ("post",),
    "api-imports": ("get", "post"),
    "api-import": ("get", "delete"),
    "api-preferences": ("get",),
    "api-demonstrations": ("get",),
    "api-skips": ("get",),
    "api-data-prompts": ("get",),
    "api-data-prompt": ("get", "patch", "delete"),
    "api-data-completions": ("get",),
    "api-data-comparisons": ("get",),
    "api-data-comparison": ("get", "patch", "delete"),
    "api-data-rankings": ("get",),
    "api-data-demonstrations": ("get",),
    "api-data-skips": ("get",),
    "api-agreement": ("get",),
    "api-reliability": ("get",),
    "api-trust": ("get",),
    "api-ratings": ("get",),
    "api-rating-slices": ("get",),
    "api-trials": ("get", "post"),
    "api-trial": ("get",),
    "api-trial-end": ("post",),
    "api-disagreements": ("get",),
    "api-case": ("get",),
    "api-adjudicate": ("post",),
    "api-return": ("post",),
    "api-discard": ("post",),
    "api-keep": ("post",),
    "api-flagged": ("get",),
    "api-reviewed-demonstrations": ("get",),
    "api-discard-demonstration": ("post",),
    "api-work": ("get",),
    "api-discard-since": ("get", "post"),
    "api-decisions": ("get",),
    "api-undo-decision": ("post",),
    "api-figures": ("get",),
    "api-own-figures": ("get",),
}
FOR_REVIEWERS = {
    ("api-disagreements", "get"),
    ("api-case", "get"),
    ("api-adjudicate", "post"),
    ("api-return", "post"),
    ("api-discard", "post"),
    ("api-keep", "post"),
    ("api-flagged", "get"),
    ("api-reviewed-demonstrations", "get"),
    ("api-discard-demonstration", "post"),
    ("api-work", "get"),
    ("api-discard-since", "get"),
    ("api-discard-since", "post"),
    ("api-decisions", "get"),
    ("api-undo-decision", "post"),
}
FOR_MANAGERS = {
    ("api-project", "patch"),
    ("api-members", "get"),
    ("api-members", "post"),
    ("api-member", "get"),
    ("api-member", "patch"),
    ("api-member", "delete"),
    ("api-invitations", "get"),
    ("api-invitations", "post"),
    ("api-invitation", "get"),
    ("api-invitation", "delete"),
    ("api-webhooks", "get"),
    ("api-webhooks", "post"),
    ("api-webhook", "get"),
    ("api-webhook", "patch"),
    ("api-webhook", "delete"),
    ("api-webhook-rotate", "post"),
    ("api-webhook-test", "post"),
    ("api-webhook-deliveries", "get"),
    ("api-webhook-redeliver", "post"),
    ("api-audit", "get"),
    ("api-site-audit", "get"),
    ("api-routing", "get"),
    ("api-routing", "patch"),
    ("api-prompts", "post"),
    ("api-completions", "post"),
    ("api-comparisons", "post"),
    ("api-gold", "post"),
    ("api-imports", "get"),
    ("api-imports", "post"),
    ("api-import", "get"),
    ("api-import", "delete"),
    ("api-preferences", "get"),
    ("api-demonstrations", "get"),
    ("api-skips", "get"),
    ("api-data-prompts", "get"),
    ("api-data-prompt", "get"),
    ("api-data-prompt", "patch"),
    ("api-data-prompt", "delete"),
    ("api-data-completions", "get"),
    ("api-data-comparisons", "get"),
    ("api-data-comparison", "get"),
    ("api-data-comparison", "patch"),
    ("api-data-comparison", "delete"),
    ("api-data-rankings", "get"),
    ("api-data-demonstrations", "get"),
    ("api-data-skips", "get"),
    ("api-agreement", "get"),
    ("api-reliability", "get"),
    ("api-trust", "get"),
    ("api-ratings", "get"),
    ("api-rating-slices", "get"),
    ("api-trials", "get"),
    ("api-trials", "post"),
    ("api-trial", "get"),
    ("api-trial-end", "post"),
    ("api-figures", "get"),
}
EVERY = [(name, verb) for name, verbs in VERBS.items() for verb in verbs]
NOT_OF_A_PROJECT = {
    "api-account-data",
    "api-account-erase",
    "api-projects",
    "api-site-audit",
    "api-tokens",
    "api-token",
    "api-token-rotate",
}
PARTS = {"slug": "support", "lease_id": uuid4()}
PARTS |= {
    "ranking_id": 1,
    "user_id": 1,
    "token_id": 1,
    "comparison_id": 1,
    "prompt_id": 1,
    "decision_id": 1,
    "import_id": 1,
    "invitation_id": 1,
    "webhook_id": 1,
    "delivery_id": 1,
    "demonstration_id": 1,
    "number": 1,
}


def address(name):
    (pattern,) = (each.pattern for each in urlpatterns if each.name == name)
    return reverse(name, kwargs={part: PARTS[part] for part in pattern.converters})


def test_every_address_is_tested_here():
    assert {each.name for each in urlpatterns} == set(VERBS)


@pytest.mark.slow
def test_without_a_token_it_is_401(as_nobody, project):
    for name, verb in EVERY:
        response = getattr(as_nobody, verb)(address(name), {}, format="json")
        assert response.status_code == 401, (name, verb)
        assert response.json()["message"].endswith("."), (name, verb)
        assert response["WWW-Authenticate"] == "Bearer", (name, verb)


@pytest.mark.slow
def test_a_stranger_gets_404_for_everything_of_the_project(as_stranger, project, work):
    work(1)
    for name, verb in EVERY:
        if name in NOT_OF_A_PROJECT:
            continue
        response = getattr(as_stranger, verb)(address(name), {}, format="json")
        assert response.status_code == 404, (name, verb)
        elsewhere = getattr(as_stranger, verb)(address(name).replace("support", "nowhere"), {}, format="json")
        assert elsewhere.json() == response.json(), (name, verb)  # not even that the project exists


@pytest.mark.slow
def test_an_annotator_cannot_manage(as_annotator, project):
    for name, verb in sorted(FOR_MANAGERS | FOR_REVIEWERS):
        response = getattr(as_annotator, verb)(address(name), {}, format="json")
        assert (response.status_code, response.json()["code"]) == (403, "forbidden"), (name, verb)


@pytest.mark.slow
def test_a_wrong_verb_is_405(as_manager, project):
    for name in VERBS:
        response = as_manager.put(address(name), {}, format="json")
        assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed"), name


@pytest.mark.parametrize("header", ["Bearer acc_wrong", "Bearer", "Token x\u00e9", "Bearer " + "x" * 5000])
def test_a_wrong_token_is_401_with_a_sentence(as_nobody, project, header):
    as_nobody.credentials(HTTP_AUTHORIZATION=header)
    response = as_nobody.get(URL)
    assert response.status_code == 401
    sentence = "This token is not valid: make a new one on your account page."
    assert response.json() == {
        "type": "/api/problems#authentication_failed",
        "title": "Authentication failed",
        "status": 401,
        "code": "authentication_failed",
        "detail": sentence,
        "message": sentence,
    }


def test_a_revoked_token_is_401(annotator, project):
    client = client_of(annotator)
    assert client.get(URL).status_code == 200
    ApiToken.objects.all().delete()
    assert client.get(URL).status_code == 401


def test_a_deactivated_account_is_401(as_annotator, annotator, project):
    annotator.is_active = False
    annotator.save()
    assert as_annotator.get(URL).status_code == 401


def test_only_the_digest_of_a_token_is_stored(annotator):
    token, key = issue_token(annotator, "tests")
    assert key not in str(vars(token))
    assert ApiToken.objects.get(digest=digest_of(key)) == token


def test_the_session_of_the_pages_works_with_a_csrf_token_alone(annotator, project):
    from rest_framework.test import APIClient

    client = APIClient(enforce_csrf_checks=True)
    client.force_login(annotator)
    assert client.get(URL).status_code == 200
    assert client.post(f"{URL}/leases", {}, format="json").status_code == 403


def test_an_unknown_api_address_is_a_404_with_a_sentence(client):
    response = client.get("/api/v1/nothing/here")
    assert response.status_code == 404
    assert "no such address" in response.json()["message"]


def test_an_unknown_api_address_answers_json_for_every_verb(project):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    for path in ("/api/v1/nothing", "/api/v1/", "/api/v2/projects"):
        for verb in ("get", "head", "post", "put", "patch", "delete", "options"):
            response = getattr(client, verb)(path)
            assert (response.status_code, response["Content-Type"]) == (404, "application/problem+json"), (path, verb)


def test_no_cache_keeps_an_answer_of_the_api(as_manager, as_nobody, project):
    for response in (as_manager.get(URL), as_nobody.get(URL), as_manager.get("/api/v1/nothing")):
        assert response["Cache-Control"] == "no-store"
