"""A passkey is added and signs in without a password, in a browser with a virtual authenticator."""

import pytest
from allauth.mfa.models import Authenticator
from playwright.sync_api import expect

DEVICE = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@pytest.mark.full
def test_a_passkey_is_added_and_signs_in_without_a_password(transactional_db, manager, user_pages, keep):
    page = user_pages.open()
    device = page.context.new_cdp_session(page)
    device.send("WebAuthn.enable")
    device.send("WebAuthn.addVirtualAuthenticator", {"options": DEVICE})
    user_pages.sign_in(page, "mona")
    page.goto("/account/second-factor/")
    page.get_by_role("link", name="Add a passkey").click()
    page.get_by_label("Password").fill("mona-password")
    page.get_by_role("button", name="Go on").click()
    page.get_by_label("Sign in with this key alone").check()
    keep(page, "passkey-add")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_role("heading", name="Recovery codes")).to_be_visible()
    keep(page, "passkey-codes")
    page.goto("/account/second-factor/")
    expect(page.locator("main")).to_contain_text("without a password")
    keep(page, "passkey-added")

    page.context.clear_cookies()
    page.goto("/sign-in/?next=/account/")
    page.get_by_role("button", name="Sign in with a passkey").click()
    page.wait_for_url(lambda url: "/sign-in/" not in url)
    assert Authenticator.objects.get(user=manager, type="webauthn").last_used_at is not None


@pytest.mark.full
def test_a_passkey_that_is_not_there_becomes_a_sentence(transactional_db, manager, user_pages):
    page = user_pages.open()
    device = page.context.new_cdp_session(page)
    device.send("WebAuthn.enable")
    device.send("WebAuthn.addVirtualAuthenticator", {"options": DEVICE | {"automaticPresenceSimulation": False}})
    page.goto("/sign-in/")
    page.evaluate("() => { navigator.credentials.get = () => Promise.reject(new DOMException('', 'NotAllowedError')) }")
    page.get_by_role("button", name="Sign in with a passkey").click()
    expect(page.locator("[data-passkey-error]")).to_be_visible()
