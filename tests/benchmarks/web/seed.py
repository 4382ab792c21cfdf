"""Program that fills a database of Accord: a project, its comparisons, and people who are signed in.

    DATABASE_URL=… python -m tests.benchmarks.web.seed COMPARISONS WANTED PEOPLE

Prints the people's cookies as a line of JSON. Signing in is not measured, and would take a second each.
"""

import json
import os
import sys

import django

from tests.benchmarks.web.pages import PROJECT


def main(comparisons: int, wanted: int, people: int) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from django.core.management import call_command

    from feedback.models import Project, Source
    from tests.benchmarks.web import rows

    call_command("migrate", verbosity=0)
    project = Project.objects.create(slug=PROJECT, name="Bench", guidelines="Be *kind*.", wanted_rankings=wanted)
    source = Source.objects.create(project=project, name="import", kind=Source.Kind.IMPORT)
    rows.write(project.pk, source.pk, comparisons, wanted)
    print(json.dumps([signed_in(f"person-{index}", project) for index in range(people)]))


def signed_in(name: str, project: object) -> dict[str, str]:
    """Make an annotator and return the cookies of a session."""
    from django.conf import settings
    from django.test import Client

    from feedback.models import Membership, User

    user = User.objects.create_user(name)
    Membership.objects.create(project=project, user=user)
    client = Client()
    client.force_login(user)
    return {settings.SESSION_COOKIE_NAME: client.cookies[settings.SESSION_COOKIE_NAME].value}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
