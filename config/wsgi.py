"""The WSGI application."""

import os

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

from config.runtime.chunked import with_length
from config.runtime.unread import drained

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = drained(with_length(get_wsgi_application()))
# Load all views before gunicorn forks its workers, not while somebody waits for the first page.
assert get_resolver().url_patterns
