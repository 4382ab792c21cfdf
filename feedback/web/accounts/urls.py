"""Those of allauth's pages that Accord has. Its names are kept, because allauth looks them up."""

from allauth.account import views as account
from django.contrib.auth.views import LogoutView
from django.urls import path, re_path

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
    path("sign-in/inactive/", account.account_inactive, name="account_inactive"),
    path("sign-out/", LogoutView.as_view(), name="sign-out"),
    path("sign-out/", LogoutView.as_view(), name="account_logout"),
    path("account/", pages.account, name="account"),
    path("account/confirm/", account.reauthenticate, name="account_reauthenticate"),
    path("account/profile/", pages.profile, name="profile"),
    path("account/sessions/end/", pages.end_all_sessions, name="end-all-sessions"),
    path("account/sessions/<int:session_id>/end/", pages.end_session, name="end-session"),
    path("account/tokens/<int:token_id>/revoke/", pages.revoke_token, name="revoke-token"),
    path("account/password/", ChangePassword.as_view(), name="password"),
    path("account/password/<uidb64>/<token>/", NewPassword.as_view(), name="new-password"),
]
