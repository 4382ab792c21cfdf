"""URLs except /healthz (config/runtime/health.py). Each app lists its pages and API."""

from csp.decorators import csp_update
from django.contrib import admin
from django.http import HttpRequest, JsonResponse
from django.urls import include, path, re_path
from django.views.decorators.csrf import csrf_exempt
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

# The template of Swagger UI has inline styles; inline scripts stay forbidden.
api_page = csp_update({"style-src": ["'unsafe-inline'"]})(SpectacularSwaggerSplitView.as_view(url_name="api-schema"))


@csrf_exempt  # a POST without a CSRF token must get 404 too, not 403
def no_such_api(request: HttpRequest) -> JsonResponse:
    """Return 404 as JSON, like other errors of the API."""
    return JsonResponse({"code": "not_found", "message": "The API has no such address: see /api/."}, status=404)


urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/", include("feedback.api.urls")),
    path("api/v1/", include("training.api.urls")),
    re_path(r"^api/v\d+(?:/|$)", no_such_api),
    path("api/schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("api/", api_page, name="api-docs"),
    path("", include("feedback.web.urls")),
    path("", include("training.web.urls")),
]
handler500 = "config.responses.server_error"
