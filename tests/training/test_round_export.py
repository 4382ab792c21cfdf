"""The export that a round's page links to."""

import html
import re

import pytest

from feedback.models import Membership
from tests.factories import add_work, membership, rank_next, rows_of
from training.rounds.inputs.rankings import rankings

pytestmark = pytest.mark.django_db


@pytest.mark.slow
def test_a_rounds_page_links_to_the_rankings_that_it_learned_from(client, manager, annotator, project, waiting):
    member: Membership = membership(annotator, project)
    read = list(rankings(waiting, waiting.jobs[0], {}))
    add_work(project, 1)
    rank_next(member)  # later than the round's cut-off
    client.force_login(manager)
    page = client.get(f"/projects/{project.slug}/rounds/{waiting.number}/").content.decode()
    (address,) = {html.unescape(link) for link in re.findall(r'href="([^"]*/export/\?[^"]*)"', page)}
    assert client.get(address).context["form"].has_filters
    exported = rows_of(client.get(address.replace("/export/?", "/export/file/?")))
    assert [row["ranking_id"] for row in exported] == [row["ranking_id"] for row in read]
    assert read
