"""A client that polls an export by cursor while people rank in transactions that stay open for a while."""

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from feedback.models import Ranking
from feedback.reports import preference_export
from tests.factories import add_work, membership, person, rank_next

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]
# The ranking has its id by then, and others commit theirs meanwhile, with higher and lower ids.
HOLD = """
    CREATE FUNCTION pg_temp_hold() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(random() * 0.03);
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER hold_open AFTER INSERT ON feedback_ranking
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp_hold()"""
RELEASE = "DROP TRIGGER hold_open ON feedback_ranking; DROP FUNCTION pg_temp_hold()"


@pytest.fixture
def _transactions_stay_open(db):
    with connection.cursor() as cursor:
        cursor.execute(HOLD)
    yield
    with connection.cursor() as cursor:
        cursor.execute(RELEASE)


@pytest.mark.parametrize(("writers", "count"), [(6, 5), pytest.param(50, 8, marks=pytest.mark.full)])
@pytest.mark.usefixtures("_transactions_stay_open")
def test_a_client_that_polls_misses_no_ranking_and_repeats_none(project, writers, count):
    people = [membership(person(project, f"p{number}", "annotator"), project) for number in range(writers)]
    add_work(project, writers * count)
    done, read, polls = threading.Event(), [], 0

    def write(member):
        try:
            order = random.Random(member.pk)
            for _ in range(count):
                assert rank_next(member, order.choice([[1, 2], [2, 1]])) is not None
        finally:
            connection.close()

    with ThreadPoolExecutor(writers) as pool:
        writing = [pool.submit(write, member) for member in people]
        threading.Thread(target=lambda: ([future.exception() for future in writing], done.set())).start()
        cursor = 0
        while True:
            is_last = done.is_set()
            exported = preference_export.export(project, "rankings", after=cursor)
            read += [json.loads(line) for line in b"".join(exported.content()).splitlines()]
            cursor, polls = exported.cursor, polls + 1
            if is_last:
                break
    for future in writing:
        future.result()
    ids = [row["ranking_id"] for row in read]
    assert sorted(ids) == sorted(Ranking.objects.values_list("pk", flat=True))
    assert [row["sequence"] for row in read] == list(range(1, writers * count + 1))
    assert polls > 2
