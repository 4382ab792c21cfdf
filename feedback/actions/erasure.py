"""Erasure of a person: their account, and all that they said, at their own wish.

The rows of the account and of rankings stay without content, under the pseudonym of the exports:

- Each ranking gets a last revision with the standing `erased`, which a reader by cursor gets as a retraction. Its
  earlier revisions lose their content and have the same standing, so that no range of the record contains it again.
  Slots open for other annotators. Adjudications by the person are undone, so that the rankings of the others count
  again. The pseudonym stays, because it names the row that a reader of exports must remove; nothing leads from it to
  the person.
- Texts that the person wrote and nobody else has ranked are emptied. Others stay without their author: the rankings of
  other people would mean nothing without them.
- The audit log keeps the acts of the person, under the pseudonym.
- Memberships, tokens, sessions, skips, stored figures and whatever else belongs to the person is deleted. Reviews that
  the person wrote about others stay, without a name.

Nothing that a round has learned before is undone: its model, and the files of its job directory, stay as they are.
"""

from django.contrib.auth.hashers import make_password
from django.contrib.sessions.models import Session
from django.db import connection, models, transaction
from django.db.models import Exists, F, OuterRef
from django.utils import timezone
from django.utils.translation import gettext as _

from feedback import audit
from feedback.actions import review_undo
from feedback.actions.review_revisions import lock_comparisons
from feedback.errors import Conflict, Forbidden
from feedback.models import (
    Comparison,
    Completion,
    Demonstration,
    Lease,
    Membership,
    Project,
    QualitySnapshot,
    Ranking,
    Reliability,
    Review,
    User,
)

# The content of a ranking without content: a tie of all completions. A reader of the record never gets it.
EMPTY = """array_fill(1::smallint, ARRAY[size::int]), ARRAY(SELECT generate_series(0, size - 1)::smallint), 0, '', NULL,
    '{}', '{}', '[]', 'erased', false, NULL, gen_random_uuid()"""
EMPTIED = (
    "ranks, display_order, seconds, comment, strength, flags, ratings, spans, standing, is_live, review_id, "
    "idempotency_key"
)
EMPTY_ALL = f"UPDATE feedback_ranking SET ({EMPTIED}) = ROW({EMPTY}) WHERE annotator_id = %(person)s"
RETRACT_ALL = f"""
    INSERT INTO feedback_ranking (
        project_id, comparison_id, annotator_id, size, reason, revision, created_at, {EMPTIED})
    SELECT project_id, comparison_id, annotator_id, size, reason, revision + 1, created_at, {EMPTY}
    FROM (
        SELECT DISTINCT ON (comparison_id) * FROM feedback_ranking
        WHERE annotator_id = %(person)s ORDER BY comparison_id, revision DESC
    ) AS last ORDER BY id"""


def erase(user: User, password: str) -> None:
    """Erase the account of the user, who confirms it with the password. Raises Forbidden or Conflict."""
    if not user.has_usable_password():
        raise Forbidden(_("You have no password here: set one first, which confirms the erasure."))
    if not user.check_password(password):
        raise Forbidden(_("This is not your password: nothing was erased."))
    with transaction.atomic(durable=True):
        list(User.objects.select_for_update(no_key=True).filter(pk=user.pk).values_list("pk"))
        _refuse_to_leave_nobody(user)
        # The first lock of everything that an annotator does: no request of theirs runs meanwhile.
        list(user.memberships.order_by("pk").select_for_update(no_key=True).values_list("pk"))
        user.memberships.all().delete()  # a trigger gives the leases back
        _undo_adjudications(user)
        _erase_rankings(user)
        _erase_texts(user)
        _delete_rows(user)
        _empty_account(user)
        audit.erase_person(user, user.username)


def _refuse_to_leave_nobody(user: User) -> None:
    managers = Membership.objects.filter(project=OuterRef("project"), role=Membership.Role.MANAGER)
    alone = user.memberships.filter(~Exists(managers.exclude(user=user)), role=Membership.Role.MANAGER)
    project = Project.objects.filter(pk__in=alone.values("project"), archived_at__isnull=True).first()
    if project is not None:
        raise Conflict(
            _('You are the only manager of "%(project)s": make somebody else a manager first.') % {"project": project}
        )
    others = User.objects.filter(is_superuser=True, is_active=True).exclude(pk=user.pk)
    if user.is_superuser and not others.exists():
        raise Conflict(_("You are the only administrator: make somebody else one first."))


def _undo_adjudications(user: User) -> None:
    made = Review.objects.filter(reviewer=user, kind=Review.Kind.ADJUDICATION, undone_at__isnull=True).order_by("pk")
    for review in made.select_for_update(of=("self",), no_key=True):
        review_undo.apply(review, user)


def _erase_rankings(user: User) -> None:
    live = Ranking.objects.filter(annotator=user, is_live=True)
    ids = list(live.values_list("comparison_id", flat=True))
    lock_comparisons(ids)
    held = Comparison.objects.filter(pk__in=live.values("comparison"))
    # A pair of a demonstration has no slot: it is for its author alone.
    of_pair = Ranking.objects.filter(comparison=OuterRef("pk"), reason=Lease.Reason.DEMONSTRATION)
    held.filter(~Exists(of_pair), adjudicated_at__isnull=True).update(open_slots=F("open_slots") + 1)
    held.update(ranking_count=F("ranking_count") - 1)
    with connection.cursor() as cursor:
        cursor.execute(EMPTY_ALL, {"person": user.pk})
        cursor.execute(RETRACT_ALL, {"person": user.pk})


def _erase_texts(user: User) -> None:
    Demonstration.objects.filter(completion__author=user, withdrawn_at__isnull=True).update(withdrawn_at=timezone.now())
    written = Completion.objects.filter(author=user)
    ranked_by_others = Ranking.objects.filter(comparison__items__completion=OuterRef("pk")).exclude(annotator=user)
    written.filter(~Exists(ranked_by_others)).update(text="", turns=None, sampling={})
    written.update(author=None)


def _delete_rows(user: User) -> None:
    """Delete the rows that belong to the person: those that a deletion of the account would delete with it."""
    for relation in User._meta.get_fields(include_hidden=True):
        if getattr(relation, "on_delete", None) is models.CASCADE and relation.auto_created:
            relation.related_model._base_manager.filter(**{relation.field.name: user}).delete()
    Reliability.objects.filter(annotator=user).delete()
    # Computed again without the person by the next reader.
    projects = Ranking.objects.filter(annotator=user).values("project")
    QualitySnapshot.objects.filter(project__in=projects).delete()
    Review.objects.filter(annotator=user).exclude(reason="").update(reason="–")
    for session in Session.objects.filter(expire_date__gt=timezone.now()).iterator():
        if session.get_decoded().get("_auth_user_id") == str(user.pk):
            session.delete()


def _empty_account(user: User) -> None:
    """Give every column of the account its default, and a name that nobody has. It cannot sign in any more."""
    user.groups.clear()
    user.user_permissions.clear()
    for field in User._meta.concrete_fields:
        if not field.primary_key:
            setattr(user, field.attname, field.get_default())
    user.username, user.is_active = f"erased-{user.pk}", False
    if User.objects.filter(username=user.username).exclude(pk=user.pk).exists():
        user.username += f"-{timezone.now():%Y%m%d%H%M%S%f}"
    user.password = make_password(None)  # nobody can sign in with it
    user.save()
    Lease.objects.filter(annotator=user).delete()  # all have lapsed
