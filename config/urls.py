"""Every address but /healthz (health.py). Pages and API of each app are listed in the app."""

from csp.decorators import csp_update
from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

# Its template carries a few lines of style inside; no script of ours or theirs may.
api_page = csp_update({"style-src": ["'unsafe-inline'"]})(SpectacularSwaggerSplitView.as_view(url_name="api-schema"))

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/v1/", include("feedback.api_urls")),
    path("api/v1/", include("training.api_urls")),
    path("api/schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("api/", api_page, name="api-docs"),
    path("", include("feedback.urls")),
    path("", include("training.urls")),
]
