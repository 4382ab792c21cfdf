"""`/healthz`: 200 when this process and its database answer and the disk has room. For supervisors, load balancers."""

import shutil
from collections.abc import Callable

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse

LEAST_FREE = 16 * 1024 * 1024  # bytes in the data folder's file system


class HealthMiddleware:
    """Comes before all others: whoever asks after our health uses whatever address there is, no name of ours."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path != "/healthz":
            return self.get_response(request)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if shutil.disk_usage(settings.DATA_DIR).free < LEAST_FREE:
            return HttpResponse("the disk is full", content_type="text/plain", status=503)
        return HttpResponse("ok", content_type="text/plain")
