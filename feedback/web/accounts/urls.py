"""Those of allauth's pages that Accord has. Its names are kept, because allauth looks them up."""

from allauth.account import views as account
from allauth.mfa.base import views as mfa
from allauth.mfa.recovery_codes import views as recovery_codes
from allauth.mfa.totp import views as totp
from allauth.mfa.webauthn import views as webauthn
from allauth.socialaccount import views as social
from allauth.socialaccount.providers.github import views as github
from allauth.socialaccount.providers.openid_connect import views as openid_connect
from django.contrib.auth.views import LogoutView
from django.urls import path, re_path
from django.views.generic import RedirectView

from feedback.web.accounts.audited import atomic
from feedback.web.accounts.passwords import ChangePassword, NewPassword, ResetPassword
from feedback.web.accounts.preferences import set_language
from feedback.web.unsent_forms import SignIn, send_unsent
from feedback.web.views import account as pages

urlpatterns = [
    path("language/", set_language, name="set-language"),
    path("sign-in/", SignIn.as_view(), name="sign-in"),
    path("sign-in/", SignIn.as_view(), name="account_login"),
    path("sign-in/unsent/", send_unsent, name="send-unsent"),
    path("sign-in/password/", account.password_reset, name="account_reset_password"),
    path("sign-in/password/sent/", account.password_reset_done, name="account_reset_password_done"),
    re_path(
        r"^sign-in/password/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$",
        ResetPassword.as_view(),
        name="account_reset_password_from_key",
    ),
    path("sign-in/with/oidc/<slug:provider_id>/login/", openid_connect.login, name="openid_connect_login"),
    path(
        "sign-in/with/oidc/<slug:provider_id>/login/callback/",
        atomic(openid_connect.callback),
        name="openid_connect_callback",
    ),
    path("sign-in/with/github/login/", github.oauth2_login, name="github_login"),
    path("sign-in/with/github/login/callback/", atomic(github.oauth2_callback), name="github_callback"),
    path("sign-in/with/cancelled/", social.login_cancelled, name="socialaccount_login_cancelled"),
    path("sign-in/with/failed/", social.login_error, name="socialaccount_login_error"),
    path("sign-in/with/name/", atomic(social.signup), name="socialaccount_signup"),
    path("sign-in/inactive/", account.account_inactive, name="account_inactive"),
    path("sign-in/code/", mfa.authenticate, name="mfa_authenticate"),
    path("sign-in/passkey/", webauthn.login_webauthn, name="mfa_login_webauthn"),
    path("sign-out/", LogoutView.as_view(), name="sign-out"),
    path("sign-out/", LogoutView.as_view(), name="account_logout"),
    path("account/", pages.account, name="account"),
    path("account/confirm/", account.reauthenticate, name="account_reauthenticate"),
    path("account/confirm/code/", mfa.reauthenticate, name="mfa_reauthenticate"),
    path("account/confirm/passkey/", webauthn.reauthenticate_webauthn, name="mfa_reauthenticate_webauthn"),
    path("account/second-factor/", mfa.index, name="mfa_index"),
    path("account/second-factor/app/", atomic(totp.activate_totp), name="mfa_activate_totp"),
    path("account/second-factor/app/remove/", atomic(totp.deactivate_totp), name="mfa_deactivate_totp"),
    path("account/second-factor/passkeys/", RedirectView.as_view(pattern_name="mfa_index"), name="mfa_list_webauthn"),
    path("account/second-factor/passkeys/add/", atomic(webauthn.add_webauthn), name="mfa_add_webauthn"),
    path(
        "account/second-factor/passkeys/<int:pk>/remove/", atomic(webauthn.remove_webauthn), name="mfa_remove_webauthn"
    ),
    path("account/second-factor/codes/", recovery_codes.view_recovery_codes, name="mfa_view_recovery_codes"),
    path(
        "account/second-factor/codes/new/",
        atomic(recovery_codes.generate_recovery_codes),
        name="mfa_generate_recovery_codes",
    ),
    path(
        "account/second-factor/codes/file/", recovery_codes.download_recovery_codes, name="mfa_download_recovery_codes"
    ),
    path("account/connections/", atomic(social.connections), name="socialaccount_connections"),
    path("account/profile/", pages.profile, name="profile"),
    path("account/sessions/end/", pages.end_all_sessions, name="end-all-sessions"),
    path("account/sessions/<int:session_id>/end/", pages.end_session, name="end-session"),
    path("account/tokens/<int:token_id>/revoke/", pages.revoke_token, name="revoke-token"),
    path("account/password/", ChangePassword.as_view(), name="password"),
    path("account/password/<uidb64>/<token>/", NewPassword.as_view(), name="new-password"),
]
