"""The OpenAPI description of the API is complete and valid."""

from io import StringIO

import pytest
from django.core.management import call_command


@pytest.mark.slow
def test_the_description_has_no_error_and_no_warning():
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=StringIO())


@pytest.mark.slow
@pytest.mark.django_db
def test_anyone_may_read_the_description(client):
    assert client.get("/api/schema/").status_code == 200
