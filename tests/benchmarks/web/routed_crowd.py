"""Program in which the people of a database rank in turn, each the next comparison of their queue.

    DATABASE_URL=… python -m tests.benchmarks.web.routed_crowd RANKINGS IS_ROUTED

Prompts get one of three tags, people one of three groups. With IS_ROUTED 1, rules send each tag to one group. Prints a
line of JSON: the seconds of each submit with the next comparison, and how many went to people of another group.
"""

import json
import os
import sys
from time import perf_counter
from uuid import uuid4

import django

TAGS = ("a", "b", "c")
TAG = """
    UPDATE feedback_prompt
    SET metadata = jsonb_build_object('tags', jsonb_build_array((ARRAY['a', 'b', 'c'])[1 + id % 3]))"""
MISROUTED = """
    SELECT count(*) FROM feedback_ranking AS ranking
    JOIN feedback_comparison AS comparison ON comparison.id = ranking.comparison_id
    JOIN feedback_prompt AS prompt ON prompt.id = comparison.prompt_id
    JOIN feedback_membership AS membership ON membership.user_id = ranking.annotator_id
    WHERE NOT accord_tags(prompt.metadata) <@ membership.groups::text[]"""


def main(count: int, is_routed: bool) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from django.db import connection

    from feedback.actions import rankings, routing
    from feedback.models import Membership, Project
    from feedback.queue import leases

    project = Project.objects.get()
    with connection.cursor() as cursor:
        cursor.execute(TAG)
        cursor.execute("VACUUM ANALYZE")
    for number, member in enumerate(project.memberships.order_by("pk")):
        routing.change_work(project, member.user_id, groups=[TAGS[number % 3]])
    if is_routed:
        routing.save_rules(project, [([tag], [tag]) for tag in TAGS])
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    people = list(Membership.objects.select_related("project", "user").order_by("pk"))
    held = {member.pk: leases.lease_next(member) for member in people}
    seconds = []
    for number in range(count):
        member = people[number % len(people)]
        lease = held[member.pk]
        began = perf_counter()
        _ranking, following = rankings.record_ranking_and_lease(
            member, lease.pk, [1, 2], beside=[lease.pk], idempotency_key=uuid4(), seconds=1.0
        )
        held[member.pk] = following or leases.lease_next(member)
        seconds.append(perf_counter() - began)
    misrouted = 0
    if is_routed:
        with connection.cursor() as cursor:
            cursor.execute(MISROUTED)
            (misrouted,) = cursor.fetchone()
    print(json.dumps({"seconds": seconds, "misrouted": misrouted}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2] == "1")
