"""Pauses: a member who gets no more comparisons until a manager lets them go on.

With the project's setting `pauses_careless`, each first answer to gold is a step of a sequential test (see
`feedback.quality.checks.guessing`). A member who shares gold preferences as often as is needed to qualify is ever
paused with a probability of at most 1 in 100. Later revisions of the answer change nothing, as in qualification. When a
manager lets a paused member go on, the test begins again.
"""

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback import audit
from feedback.errors import Conflict, NotFound
from feedback.models import Comparison, Membership, Pause, Project, Ranking, User
from feedback.quality.checks import guessing

NO_ANSWERS = {"gold_bets": 0.0, "gold_answers": 0, "gold_right": 0}


def bet_on_gold(membership: Membership, ranking: Ranking) -> None:
    """Count a first answer to gold, and pause its author if their answers look like chance. The member is locked."""
    if not membership.project.pauses_careless or membership.paused_at is not None:
        return
    gold_ranks = Comparison.objects.values_list("gold_ranks", flat=True).get(pk=ranking.comparison_id)
    is_right = guessing.is_right_on_gold(ranking.ranks, gold_ranks or [])
    if is_right is None:
        return
    probability = guessing.careful_on_gold(membership.project.qualification_percent / 100)
    membership.gold_answers += 1
    membership.gold_right += is_right
    membership.gold_bets = guessing.next_bet(membership.gold_bets, membership.gold_answers, is_right, probability)
    membership.save(update_fields=list(NO_ANSWERS))
    if guessing.wealth_of(membership.gold_bets, membership.gold_answers) >= 1 / guessing.FALSE_ALARM_RATE:
        _pause(membership, None)


@transaction.atomic
def pause(project: Project, user_id: int, manager: User) -> Membership:
    """Pause a member. Raises NotFound, or Conflict if they are paused already."""
    membership = _lock(project, user_id)
    if membership.paused_at is not None:
        raise Conflict(_("%(user)s is paused already.") % {"user": membership.user})
    _pause(membership, manager)
    audit.record("member.pause", project, membership.user, actor=manager)
    return membership


@transaction.atomic
def resume(project: Project, user_id: int, manager: User) -> Membership:
    """Let a paused member go on. Their test begins again. Raises NotFound, or Conflict if they are not paused."""
    membership = _lock(project, user_id)
    if membership.paused_at is None:
        raise Conflict(_("%(user)s is not paused.") % {"user": membership.user})
    membership.paused_at = None
    for name, value in NO_ANSWERS.items():
        setattr(membership, name, value)
    membership.save(update_fields=["paused_at", *NO_ANSWERS])
    still = Pause.objects.filter(project=project, user=user_id, ended_at__isnull=True)
    still.update(ended_at=timezone.now(), ended_by=manager)
    audit.record("member.resume", project, membership.user, actor=manager)
    return membership


def pauses_of(project: Project) -> QuerySet[Pause]:
    """Return the pauses of the project's members, the newest first."""
    return Pause.objects.filter(project=project).select_related("user", "made_by", "ended_by").order_by("-pk")


def _pause(membership: Membership, manager: User | None) -> None:
    membership.paused_at = timezone.now()
    membership.save(update_fields=["paused_at"])
    answers = {} if manager else {"gold_answers": membership.gold_answers, "gold_right": membership.gold_right}
    Pause.objects.create(
        project_id=membership.project_id, user_id=membership.user_id, made_by=manager, began_at=membership.paused_at,
        **answers,
    )  # fmt: skip


def _lock(project: Project, user_id: int) -> Membership:
    of_project = project.memberships.select_related("user").select_for_update(of=("self",), no_key=True)
    membership = of_project.filter(user_id=user_id).first()
    if membership is None:
        raise NotFound(_("This person is not a member."))
    return membership
