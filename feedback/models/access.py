"""Access without a password: links of invitations, and tokens of the API."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

from feedback.models.people import Membership, Project, User


class Invitation(models.Model):
    """A link with which people make an account and become members. Only its key's SHA-256 digest is stored."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="invitations")
    role = models.CharField(max_length=10, choices=Membership.Role.choices)
    name = models.CharField(max_length=100, blank=True, help_text="Whom the link is for, in the inviter's words.")
    digest = models.CharField(max_length=64, unique=True)
    places = models.PositiveSmallIntegerField(help_text="How many people may join with it.")
    used = models.PositiveSmallIntegerField(default=0, help_text="How many have joined.")
    made_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(role__in=["annotator", "reviewer", "manager"]), name="invitation_role"),
            models.CheckConstraint(condition=Q(places__gte=1, used__lte=F("places")), name="invitation_places"),
        ]

    def __str__(self) -> str:
        return self.name or str(self.get_role_display())


class ApiToken(models.Model):
    """A user's key to the API. Only its SHA-256 digest is stored; the key itself is shown once."""

    user = models.ForeignKey(User, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, unique=True)
    scopes = ArrayField(
        models.CharField(max_length=20),
        null=True,
        help_text="What the token may do, see feedback/api/scopes.py; NULL: all that its user may do.",
    )
    project_ids = ArrayField(
        models.BigIntegerField(), null=True, help_text="The projects it is limited to; NULL: all of its user's."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return self.name
