"""Writes of managers about who gets which work: routing rules, groups and limits of members."""

from collections.abc import Sequence
from typing import Any

from django.db import connection, transaction
from django.db.models import F
from django.utils.translation import gettext as _

from feedback import audit
from feedback.errors import Invalid, NotFound
from feedback.models import MAX_NAMES, Membership, Project, RoutingRule

MAX_RULES = 100
BATCH = 5000  # comparisons that get their routes in one transaction
ROUTE = """
    WITH looked_at AS (
        SELECT id, prompt_id, project_id, route FROM feedback_comparison
        WHERE project_id = %(project)s AND id > %(after)s ORDER BY id LIMIT %(batch)s
    ), routed AS (
        UPDATE feedback_comparison AS comparison SET route = accord_route(prompt.metadata, project.routed_tags)
        FROM looked_at, feedback_prompt AS prompt, feedback_project AS project
        WHERE comparison.id = looked_at.id AND prompt.id = looked_at.prompt_id AND project.id = looked_at.project_id
            AND looked_at.route <> accord_route(prompt.metadata, project.routed_tags)
    )
    SELECT max(id) FROM looked_at
"""


def save_rules(project: Project, rules: Sequence[tuple[Sequence[str], Sequence[str]]]) -> None:
    """Replace the routing rules, as (tags, groups). Members give back at once what is not for them any more.

    Raises Invalid.
    """
    if len(rules) > MAX_RULES:
        raise Invalid(_("A project has at most %(most)s rules.") % {"most": MAX_RULES})
    cleaned = [
        (_names(tags, _("tags"), max_length=100), _names(groups, _("groups"), max_length=50)) for tags, groups in rules
    ]
    if not all(tags and groups for tags, groups in cleaned):
        raise Invalid(_("A rule needs at least one tag and one group."))
    with transaction.atomic(durable=True):
        locked = Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        before = [str(rule) for rule in locked.routing_rules.order_by("pk")]
        RoutingRule.objects.filter(project=locked).delete()
        RoutingRule.objects.bulk_create(
            RoutingRule(project=locked, tags=tags, groups=groups) for tags, groups in cleaned
        )
        locked.routed_tags = sorted({tag for tags, _groups in cleaned for tag in tags})
        locked.save(update_fields=["routed_tags"])
        after = [str(rule) for rule in locked.routing_rules.order_by("pk")]
        audit.record("routing.rules", locked, before={"rules": before}, after={"rules": after})
        # Not written for its value: a trigger computes `barred_tags`, and another one lapses leases.
        Membership.objects.filter(project=locked).update(groups=F("groups"))
    # Afterwards, batch by batch, because a lock on every comparison would stop the annotators. Until this is done the
    # rules hold all the same: a claim compares the tags of the prompt itself.
    _route_comparisons(locked)


def change_work(project: Project, user_id: int, **fields: Any) -> Membership:
    """Change a member's `groups`, `daily_limit`, `total_limit` or `share_limit`. Raises NotFound, Invalid."""
    if "groups" in fields:
        fields["groups"] = _names(fields["groups"], _("groups"), max_length=50)
    with transaction.atomic():
        # The order of locks is that of `save_rules`.
        Project.objects.select_for_update(no_key=True).get(pk=project.pk)
        membership = project.memberships.select_related("user", "project").filter(user_id=user_id).first()
        if membership is None:
            raise NotFound(_("This person is not a member."))
        before = audit.values_of(membership, fields)
        for name, value in fields.items():
            setattr(membership, name, value)
        membership.save(update_fields=list(fields))
        audit.record("member.work", membership.project, membership.user, before=before, after=fields)
        membership.refresh_from_db(fields=["barred_tags"])
    return membership


def _names(names: Sequence[str], title: str, max_length: int) -> list[str]:
    """Return the names without surrounding blanks and doubles, in their order."""
    cleaned = list(dict.fromkeys(" ".join(name.split()) for name in names if name.strip()))
    if len(cleaned) > MAX_NAMES or any(len(name) > max_length or "\0" in name for name in cleaned):
        raise Invalid(
            _("At most %(most)s %(title)s of at most %(length)s characters.")
            % {"most": MAX_NAMES, "title": title, "length": max_length}
        )
    return cleaned


def _route_comparisons(project: Project) -> None:
    after: int | None = 0
    while after is not None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(ROUTE, {"project": project.pk, "after": after, "batch": BATCH})
            (after,) = cursor.fetchone()
