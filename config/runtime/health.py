"""`/healthz` for supervisors and load balancers: 200 if process and database answer and the disk has room."""

import shutil
from collections.abc import Callable

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, HttpResponse

MIN_FREE_BYTES = 16 * 1024 * 1024  # in the data folder's file system


class HealthMiddleware:
    """Answer `/healthz` before all other middleware, which would refuse the Host header of a load balancer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path != "/healthz":
            return self.get_response(request)
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        if shutil.disk_usage(settings.DATA_DIR).free < MIN_FREE_BYTES:
            return HttpResponse("the disk is full", content_type="text/plain", status=503)
        return HttpResponse("ok", content_type="text/plain")
