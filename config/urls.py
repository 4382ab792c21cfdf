"""URLs except /healthz (config/runtime/health.py). Each app lists its pages and API."""

from allauth.account.decorators import secure_admin_login
from csp.decorators import csp_update
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path, re_path
from django.utils.html import format_html, format_html_join
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from feedback.errors import NotFound
from feedback.problems import PAGE, descriptions, problem_response
from feedback.web.accounts.second_factor import checked

# The template of Swagger UI has inline styles; inline scripts stay forbidden.
api_page = csp_update({"style-src": ["'unsafe-inline'"]})(SpectacularSwaggerSplitView.as_view(url_name="api-schema"))


@csrf_exempt  # a POST without a CSRF token must get 404 too, not 403
def no_such_api(request: HttpRequest) -> HttpResponse:
    """Return 404 as the other errors of the API."""
    return problem_response(NotFound("The API has no such address: see /api/."))


def problems(request: HttpRequest) -> HttpResponse:
    """List the codes of the API's errors. `type` of a problem is an address here."""
    lines = format_html_join(
        "", '<dt id="{}">{}</dt><dd>{}</dd>', [(code, code, text) for code, text in descriptions().items()]
    )
    return HttpResponse(
        format_html('<!DOCTYPE html><html lang="en"><title>Accord: errors of the API</title><dl>{}</dl></html>', lines)
    )


# Django's own form would neither count wrong passwords nor ask for a second factor.
admin.site.login = secure_admin_login(admin.site.login)
admin.site.has_permission = checked(admin.site.has_permission)

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/", include("feedback.api.urls")),
    path("api/v1/", include("training.api.urls")),
    re_path(r"^api/v\d+(?:/|$)", no_such_api),
    path(PAGE.removeprefix("/"), problems, name="api-problems"),
    path("api/schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("api/", api_page, name="api-docs"),
    path("", include("feedback.web.urls")),
    path("", include("training.web.urls")),
]
handler400 = "config.responses.bad_request"
handler429 = "feedback.web.accounts.sign_in.too_many_requests"
handler500 = "config.responses.server_error"
