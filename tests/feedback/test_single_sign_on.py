"""Single sign-on with a real OpenID provider on this machine: accounts, and roles from a claim."""

from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from allauth.mfa.totp.internal.auth import TOTP
from allauth.socialaccount.models import SocialAccount
from django.core import mail
from django.test import Client
from oidc_provider_mock import run_server_in_thread

from config.runtime.errors import SetupError
from config.runtime.single_sign_on import allauth_providers, read_single_sign_on
from feedback.actions import claimed_roles
from feedback.models import AuditEntry, Membership, User

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("plain_static_files"),
    pytest.mark.filterwarnings("ignore:get_jwt_config:DeprecationWarning"),  # of the provider's own libraries
]
FILE = """
[[provider]]
id = "company"
name = "Our company"
server = "http://localhost:{port}"
client_id = "accord"
client_secret = "a secret"
create_accounts = true
claim = "groups"
administrators = ["accord-admins"]
[[provider.role]]
value = "support-annotators"
project = "support"
role = "annotator"
[[provider.role]]
value = "support-managers"
project = "support"
role = "manager"
"""
CLAIMS = {"preferred_username": "grace", "email": "ann@example.org", "email_verified": True}


@pytest.fixture(scope="module")
def server():
    with run_server_in_thread() as running:
        yield f"http://localhost:{running.server_port}"


@pytest.fixture(autouse=True)
def provider(server, settings, tmp_path) -> dict:
    (tmp_path / "sso.toml").write_text(FILE.format(port=urlsplit(server).port))
    settings.SINGLE_SIGN_ON = read_single_sign_on("ACCORD_SSO_FILE", str(tmp_path / "sso.toml"))
    settings.SOCIALACCOUNT_PROVIDERS = allauth_providers(settings.SINGLE_SIGN_ON)
    return settings.SINGLE_SIGN_ON[0]


def sign_in(client: Client, server: str, groups: list[str], query: str = "", **claims):
    """Go the way of a browser: to the provider, whose form is sent, and back. Return the last answer."""
    httpx2.put(f"{server}/users/grace-1", json=CLAIMS | {"groups": groups} | claims).raise_for_status()
    sent = client.get(f"/sign-in/with/oidc/company/login/{query}")
    assert parse_qs(urlsplit(sent.url).query)["code_challenge_method"] == ["S256"]
    back = httpx2.post(sent.url, data={"sub": "grace-1"}).headers["Location"]
    return client.get(back.removeprefix("http://testserver"))


def name_of(client: Client) -> str | None:
    context = client.get("/account/").context
    return context["user"].get_username() if context else None


@pytest.mark.slow
def test_a_person_of_the_provider_gets_an_account_with_the_roles_of_the_claim(client, server, project):
    assert b"Sign in with Our company" in client.get("/sign-in/").content
    assert sign_in(client, server, ["support-annotators", "support-managers", "others"]).url == "/"
    assert name_of(client) == "grace"
    assert Membership.objects.get().role == "manager"  # the highest of the two
    user = User.objects.get()
    assert not (user.is_staff or user.has_usable_password() or user.email)


@pytest.mark.slow
def test_roles_follow_the_claim_at_each_sign_in(client, server, project, manager):
    def role() -> str | None:
        return Membership.objects.filter(user__username="grace").values_list("role", flat=True).first()

    roles = []
    for groups in (["support-managers"], ["support-annotators", "accord-admins"], []):
        sign_in(client, server, groups)
        roles.append((role(), User.objects.get(username="grace").is_staff))
    assert roles == [("manager", False), ("annotator", True), (None, False)]


@pytest.mark.slow
def test_accounts_and_roles_of_the_provider_are_in_the_audit_log(client, server, project, manager):
    for groups in (["support-managers"], ["support-annotators", "accord-admins"], []):
        sign_in(client, server, groups)
    acts = AuditEntry.objects.order_by("pk").values_list("act", "actor_name")
    assert [act for act, _name in acts] == [
        *("connection.add", "account.create", "member.add"),
        *("account.profile", "member.role"),
        *("account.profile", "member.remove"),
    ]
    assert acts[0][1] == acts[3][1] == "grace"


@pytest.mark.slow
def test_a_project_keeps_its_last_manager(client, server, project):
    sign_in(client, server, ["support-managers"])
    sign_in(client, server, [])
    assert Membership.objects.get().role == "manager"


@pytest.mark.slow
def test_an_account_is_never_found_by_its_name_or_mail_address(client, server, project, annotator):
    User.objects.filter(pk=annotator.pk).update(email="ann@example.org", username="grace")
    sign_in(client, server, [])
    assert name_of(client) != "grace"
    assert SocialAccount.objects.get().user_id != annotator.pk


@pytest.mark.slow
def test_without_create_accounts_only_connected_people_sign_in(client, server, provider, annotator):
    provider["create_accounts"] = False
    assert b"have no account here" in sign_in(client, server, []).content
    assert name_of(client) is None
    client.force_login(annotator)
    assert sign_in(client, server, [], "?process=connect").url == "/account/connections/"
    client.logout()
    sign_in(client, server, [])
    assert name_of(client) == "ann"


@pytest.mark.slow
def test_the_second_factor_and_a_deactivated_account_count_here_too(client, server, annotator):
    client.force_login(annotator)
    sign_in(client, server, [], "?process=connect")
    client.logout()
    TOTP.activate(annotator, "A" * 32)
    assert sign_in(client, server, []).url == "/sign-in/code/"
    User.objects.update(is_active=False)
    assert sign_in(Client(), server, []).url == "/sign-in/inactive/"


@pytest.mark.slow
def test_the_only_way_to_sign_in_cannot_be_removed_and_no_password_is_mailed(client, server, project):
    sign_in(client, server, [])
    account = SocialAccount.objects.get()
    assert b"no password" in client.post("/account/connections/", {"account": account.pk}).content
    assert SocialAccount.objects.exists()
    User.objects.update(email="grace@example.org")
    Client().post("/sign-in/password/", {"email": "grace@example.org"})
    assert mail.outbox == []


def test_an_answer_with_a_forged_state_signs_nobody_in(client, server, project):
    answer = client.get("/sign-in/with/oidc/company/login/callback/?code=x&state=forged")
    assert b"did not confirm" in answer.content
    assert name_of(client) is None


@pytest.mark.parametrize(
    ("claims", "claim", "values"),
    [
        ({"userinfo": {"groups": ["a", "b"]}}, "groups", {"a", "b"}),
        ({"userinfo": {}, "id_token": {"roles": ["a"]}}, "roles", {"a"}),  # Entra
        ({"id_token": {"realm_access": {"roles": ["a"]}}}, "realm_access.roles", {"a"}),  # Keycloak
        ({"userinfo": {"https://example.org/roles": "a"}}, "https://example.org/roles", {"a"}),
        ({"login": "ada"}, "login", {"ada"}),  # GitHub
        ({"userinfo": {"groups": None}}, "groups", set()),
    ],
)
def test_a_claim_is_found_in_the_userinfo_or_the_id_token(claims, claim, values):
    assert claimed_roles.values_of(claims, claim) == values


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ('id = "company"', 'id = "Our Company"', "id must consist"),
        ("http://localhost:{port}", "http://sso.example.org", "with https"),
        ('client_id = "accord"', "", "client_id is missing"),
        ('claim = "groups"', "", "claim is missing"),
        ('role = "manager"', 'role = "boss"', "each role needs"),
        ("create_accounts", "creates", 'unknown key "creates"'),
        ('client_secret = "a secret"', 'client_secret_file = "/nowhere"', "cannot be read"),
        ("[[provider]]", "[[provider", "cannot be read"),
    ],
)
def test_a_wrong_file_stops_the_start_with_a_sentence(tmp_path, before, after, sentence):
    (tmp_path / "sso.toml").write_text(FILE.replace(before, after, 1).replace("{port}", "1"))
    with pytest.raises(SetupError, match=sentence):
        read_single_sign_on("ACCORD_SSO_FILE", str(tmp_path / "sso.toml"))
