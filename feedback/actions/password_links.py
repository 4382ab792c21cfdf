"""Links with which a person sets a new password, made by a manager for those who have forgotten theirs."""

from django.contrib.auth.tokens import default_token_generator
from django.db import transaction
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode
from django.utils.translation import gettext as _

from feedback import audit
from feedback.errors import Forbidden, NotFound
from feedback.models import Membership, Project, User


@transaction.atomic
def password_link(manager: Membership, user_id: int) -> tuple[str, str]:
    """Return the id and token of a link for one use; it lasts settings.PASSWORD_RESET_TIMEOUT seconds.

    Who can open it can act as this person, so it gives a manager no more than they may do already: Forbidden for
    administrators, and for members of a project that the manager does not manage. NotFound for no active member.
    """
    user = User.objects.filter(memberships__project=manager.project, pk=user_id, is_active=True).first()
    if user is None:
        raise NotFound(_("This person is not a member."))
    managed = Project.objects.filter(memberships__user=manager.user, memberships__role=Membership.Role.MANAGER)
    if user.is_staff or user.is_superuser or user.memberships.exclude(project__in=managed).exists():
        raise Forbidden(
            _("%(user)s can do more than this project's managers: ask an administrator for a new password.")
            % {"user": user}
        )
    audit.record("password.link", manager.project, user)
    return urlsafe_base64_encode(force_bytes(user.pk)), default_token_generator.make_token(user)
