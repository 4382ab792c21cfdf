"""The lineage of checkpoints: the graph's rows, and the page of all checkpoints."""

import math
import random

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from feedback.reports.source_ratings import get_ratings
from tests.factories import FAST, fake_model, membership
from tests.training.rated_rounds import make_rounds, rank_rounds
from training import checkpoints
from training.lineage import Place, layout
from training.models import Checkpoint
from training.web.lineage_rows import sizes_of

URL = "/projects/support/checkpoints/"


def drawn_parents(places: list[Place]) -> dict[int, int | None]:
    """Follow the line of each checkpoint up through the rows to the checkpoint where it begins."""
    parents: dict[int, int | None] = {}
    for row, place in enumerate(places):
        lane = place.branches_from if place.branches_from is not None else place.lane
        parents[place.pk] = None
        if place.branches_from is None and not place.has_line_above:
            continue
        for above in reversed(places[:row]):
            if above.lane == lane:
                assert above.has_line_below
                parents[place.pk] = above.pk
                break
            assert lane in above.passing, "the line is interrupted"
        assert place.branches_from is None or lane in place.passing, "the line of its base ends here"
    return parents


@pytest.mark.parametrize("count", [1, 20, 200])
def test_the_drawn_lines_lead_from_each_checkpoint_to_its_base(count):
    random_ = random.Random(count)
    for reach in (1, 3, count):  # a single line; branches near its end; branches everywhere
        parents: dict[int, int | None] = {1: None}
        for pk in range(2, count + 1):
            parents[pk] = None if random_.random() < 0.02 else random_.randint(max(1, pk - reach), pk - 1)
        places = layout(parents, served=random_.randint(1, count))
        assert drawn_parents(places) == parents
        assert sorted(place.pk for place in places) == sorted(parents)
        assert max(place.lane for place in places) <= math.log2(count) + 1


def test_the_line_to_the_served_checkpoint_goes_straight_down():
    parents = {1: None, 2: 1, 3: 2, 4: 2, 5: 1}
    assert [(place.pk, place.lane) for place in layout(parents)] == [(1, 0), (5, 1), (2, 0), (4, 1), (3, 0)]
    assert [(place.pk, place.lane) for place in layout(parents, served=5)] == [(1, 0), (2, 1), (4, 2), (3, 1), (5, 0)]
    assert layout({}) == []


@pytest.fixture
def console(client, manager):
    client.force_login(manager)
    return client


def text_of(response) -> str:
    assert response.status_code == 200
    return " ".join(response.content.decode().split())


def test_without_a_model_the_page_says_what_to_do(console, project):
    page = text_of(console.get(URL))
    assert "No model yet" in page and 'href="/projects/support/console/"' in page


@pytest.mark.slow
def test_the_page_shows_rating_kl_and_size_at_each_checkpoint(console, project, base, annotator, manager, tmp_path):
    made = make_rounds(project, base)
    rank_rounds(project, [membership(annotator, project)], made, 20)
    other = checkpoints.import_checkpoint(project, str(fake_model(tmp_path / "other")), "other", verdict=FAST)
    checkpoints.retire(made[3], manager)
    response = console.get(URL)
    page = text_of(response)
    rows = {str(row.entry.checkpoint): row for row in response.context["rows"]}
    assert list(rows) == ["base", "round-0001", "round-0002", "round-0003", "other"]
    by_source = {rating.source_id: rating.value for rating in get_ratings(project).ratings.ratings}
    values = {row.entry.checkpoint.source_id: row.rating.value for row in rows.values() if row.rating}
    assert values == pytest.approx(by_source) and len(values) == 4
    assert [rows[name].entry.kl and rows[name].entry.kl.value for name in rows] == [None, 1.2, 3.1, 6.4, None]
    assert f'href="{URL}{other.pk}/"' in page and 'href="/projects/support/rounds/2/"' in page
    assert "from round-0001" in page and page.count('class="ring"') == 1
    assert f'<tr id="checkpoint-{made[3].pk}" class="retired">' in page and ">6.40<" in page
    with CaptureQueriesContext(connection) as few:
        console.get(URL)
    Checkpoint.objects.bulk_create(
        Checkpoint(
            project=project,
            source=project.sources.create(name=f"more-{n}", kind="checkpoint"),
            kind="round",
            path=f"/made/{n}",
            parent=made[n % 4],
            verdict="exact_fast",
        )
        for n in range(20)
    )
    with CaptureQueriesContext(connection) as many:
        assert len(console.get(URL).context["rows"]) == 25
    assert len(many) == len(few)


def test_the_sum_counts_a_folder_once_and_no_deleted_files():
    def stored(path, size, **fields):
        return Checkpoint(path=path, file_sizes=None if size is None else {"model": size, "shared": 7}, **fields)

    now = "2026-11-01T00:00Z"
    sizes = sizes_of(
        [
            stored("/a", 100, kind="imported"),
            stored("/a", 100, kind="imported", retired_at=now),
            stored("/b", 50, kind="round", retired_at=now),
            stored("/c", 30, kind="round", retired_at=now, files_deleted_at=now),
            stored("/d", None, kind="round"),
        ]
    )
    assert (sizes.total, sizes.deletable, sizes.unmeasured) == (150, 50, 1)
