"""Figures of routing: rules, groups, and comparisons that wait for people whom the project lacks."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection
from django.db.models import Count, Max
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from feedback.models import Comparison, Membership, Pause, Project, RoutingRule
from feedback.queue import limits

MAX_PROMPTS_READ = 10_000
MAX_TAGS = 50
TAGS = """
    SELECT tag, count(*) FROM (
        SELECT metadata FROM feedback_prompt WHERE project_id = %s ORDER BY created_at DESC, id DESC LIMIT %s
    ) AS newest, unnest(accord_tags(newest.metadata)) AS tag
    GROUP BY tag ORDER BY count(*) DESC, tag LIMIT %s"""
RANKED_BEFORE = """
    SELECT count(*)
    FROM feedback_comparison AS comparison
    JOIN feedback_ranking AS ranking ON ranking.comparison_id = comparison.id AND ranking.is_live
    JOIN feedback_membership AS membership
        ON membership.project_id = comparison.project_id AND membership.user_id = ranking.annotator_id
    WHERE comparison.project_id = %s AND comparison.route <> ''
        AND ranking.reason NOT IN ('adjudication', 'demonstration', 'imported')
        AND membership.barred_tags::text[] && string_to_array(comparison.route, E'\\n')"""


@dataclass(frozen=True)
class Waiting:
    """Comparisons with open slots whose prompts have the same tags that rules name."""

    tags: list[str]
    comparisons: int
    wanted_rankings: int  # the most that one of them wants
    members: int  # who may rank them

    @property
    def lacks_people(self) -> bool:
        return self.members < self.wanted_rankings

    @property
    def sentence(self) -> str:
        """Return what is wrong, for managers; "" if nothing is."""
        named = {"n": f"{self.comparisons:,}", "tags": ", ".join(self.tags)}
        if not self.members:
            return (
                ngettext(
                    "%(n)s comparison tagged %(tags)s has nobody: no member meets its rules.",
                    "%(n)s comparisons tagged %(tags)s have nobody: no member meets their rules.",
                    self.comparisons,
                )
                % named
            )
        if self.lacks_people:
            return _(
                "Comparisons tagged %(tags)s want %(wanted)s rankings, and only %(members)s may rank them (%(n)s wait)."
            ) % {**named, "wanted": self.wanted_rankings, "members": self.members}
        return ""


@dataclass(frozen=True)
class Overview:
    rules: list[RoutingRule]
    waiting: list[Waiting]
    ranked_before: int  # live rankings by members whom the rules keep from them now
    tags: list[tuple[str, int]]  # the most frequent tags of the newest prompts, with the number of prompts
    unknown_tags: list[str]  # named by rules; none of the newest prompts and of what waits has them
    empty_groups: list[str]  # named by rules, without a member


def overview(project: Project) -> Overview:
    rules = list(project.routing_rules.order_by("pk"))
    members = list(project.memberships.filter(user__is_active=True, paused_at__isnull=True))
    waiting = _waiting(project, members) if rules else []
    with connection.cursor() as cursor:
        cursor.execute(TAGS, [project.pk, MAX_PROMPTS_READ, MAX_TAGS])
        tags = cursor.fetchall()
        ranked_before = 0
        if rules:
            cursor.execute(RANKED_BEFORE, [project.pk])
            (ranked_before,) = cursor.fetchone()
    seen = {tag for tag, _count in tags} | {tag for one in waiting for tag in one.tags}
    of_members = {group for member in members for group in member.groups}
    return Overview(
        rules,
        waiting,
        ranked_before,
        tags,
        sorted({tag for rule in rules for tag in rule.tags} - seen) if len(tags) < MAX_TAGS else [],
        sorted({group for rule in rules for group in rule.groups} - of_members),
    )


def _waiting(project: Project, members: Sequence[Membership]) -> list[Waiting]:
    routed = Comparison.objects.waiting_in(project).exclude(route="").order_by("route").values_list("route")
    rows = routed.annotate(count=Count("pk"), wanted=Max("wanted_rankings"))
    barred = [set(member.barred_tags) for member in members]
    return [
        Waiting(tags, count, wanted, sum(tags_of.isdisjoint(tags) for tags_of in barred))
        for tags, count, wanted in ((route.split("\n"), count, wanted) for route, count, wanted in rows)
    ]


def reason_for_nothing(membership: Membership) -> str:
    """Return why the member gets no work although some may wait, in a sentence to them; "" if there is no reason."""
    if membership.paused_at is not None:
        return _pause(membership)
    if limit := limits.reached(membership):
        return _LIMIT_REACHED[limit.name](limit.value)
    if membership.barred_tags:
        barred = Comparison.objects.waiting_in(membership.project).exclude(route="").values_list("route", flat=True)
        routes = barred.order_by("route").annotate(count=Count("pk")).values_list("route", "count")
        count = sum(count for route, count in routes if not set(membership.barred_tags).isdisjoint(route.split("\n")))
        if count:
            return ngettext(
                "What is left is for members of other groups: %(n)s comparison. Ask a manager if it should be yours.",
                "What is left is for members of other groups: %(n)s comparisons. Ask a manager if it should be yours.",
                count,
            ) % {"n": f"{count:,}"}
    return ""


def _pause(membership: Membership) -> str:
    pause = Pause.objects.filter(project=membership.project_id, user=membership.user_id, ended_at__isnull=True).first()
    if pause is None or pause.made_by is not None or pause.gold_answers is None:
        return _("You are paused in this project. Ask a manager when you can go on.")
    return _(
        "You are paused in this project: your answers to test comparisons looked like chance. Read the guidelines "
        "again, and ask a manager to let you go on."
    )


def _day(value: int) -> str:
    return ngettext(
        "You have made the one ranking that you may make here a day. You get more after midnight.",
        "You have made the %(n)s rankings that you may make here a day. You get more after midnight.",
        value,
    ) % {"n": f"{value:,}"}


def _total(value: int) -> str:
    return ngettext(
        "You have made the one ranking that you may make in this project. Thank you!",
        "You have made the %(n)s rankings that you may make in this project. Thank you!",
        value,
    ) % {"n": f"{value:,}"}


def _share(value: int) -> str:
    return _("You have made %(n)s %% of this project's rankings, as many as one person may. Others rank the rest.") % {
        "n": value
    }


_LIMIT_REACHED = {"daily_limit": _day, "total_limit": _total, "share_limit": _share}
