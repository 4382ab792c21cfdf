"""Projects, their members, and the tokens of the current user."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import invitations, members, pauses, projects, routing, tokens
from feedback.api import scopes, strict
from feedback.api.idempotency import show_once
from feedback.api.pages import ListQuery, as_page
from feedback.api.views import api_view
from feedback.errors import Invalid, NotFound
from feedback.models import MAX_LIMIT, MAX_NAMES, ApiToken, Invitation, Membership, Project
from feedback.queue import sampling
from feedback.reports import progress

# Every editable field of a project except its identity and state. Labels, help texts and limits are the model's.
SETTINGS = tuple(
    field.name for field in Project._meta.fields if field.editable and field.name not in ("id", "slug", "archived_at")
)

# Settings that a member needs for ranking. The others would show annotators how often they are tested.
MEMBER_SETTINGS = (
    "name",
    "guidelines",
    "lease_minutes",
    "comparisons_ahead",
    "strength_points",
    "one_key_pairs",
    "flags",
    "information_flags",
    "review_flags",
    "attributes",
)


# Former name to name: settings of version 0.1, accepted for one release.
RENAMED = {"extra_opinions": "extra_rankings"}


class ProjectSerializer(strict.ModelSerializer):
    """A project and the role of the current user in it. Only managers get all settings."""

    role = serializers.SerializerMethodField()

    class Meta:
        model = Project
        fields = ("slug", *SETTINGS, "role", "created_at", "archived_at")
        extra_kwargs = {name: {"required": False} for name in SETTINGS if name not in MEMBER_SETTINGS}

    def to_representation(self, project: Project) -> dict[str, Any]:
        body = super().to_representation(project)
        if body["role"] != Membership.Role.MANAGER:
            for name in set(SETTINGS) - set(MEMBER_SETTINGS):
                del body[name]
        return body

    def get_role(self, project: Project) -> str:
        return self.context["roles"][project.pk]


def _sampling_rule() -> serializers.ChoiceField:
    """Return the field of `Project.sampling_rule`: the model cannot import the rules and list the choices."""
    field = Project._meta.get_field("sampling_rule")
    label, help_text = field.verbose_name, field.help_text
    return serializers.ChoiceField(sorted(sampling.RULES), required=False, label=label, help_text=help_text)


class AcceptFormerNames(strict.ModelSerializer):
    """Settings of a project, also by their former names."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            for former, name in RENAMED.items():
                if former not in data:
                    continue
                if name in data:
                    message = _('This is the former name of "%(name)s": send only "%(name)s".') % {"name": name}
                    raise serializers.ValidationError({former: message})
                data = {name if key == former else key: value for key, value in data.items()}
        return super().to_internal_value(data)


class ProjectRequest(AcceptFormerNames):
    """A new project. Only its slug and name are required."""

    sampling_rule = _sampling_rule()

    class Meta:
        model = Project
        fields = ("slug", *SETTINGS)


class ProjectSettingsRequest(AcceptFormerNames):
    """Settings that can be changed. Some apply only to data that is added afterwards, such as `wanted_rankings`."""

    sampling_rule = _sampling_rule()

    class Meta:
        model = Project
        fields = SETTINGS


class MemberSerializer(strict.ModelSerializer):
    user_id = serializers.IntegerField(read_only=True)
    username = serializers.CharField(source="user.username", read_only=True)
    ranking_count = serializers.IntegerField(read_only=True)
    last_ranked_at = serializers.DateTimeField(read_only=True, allow_null=True)

    class Meta:
        model = Membership
        fields = (
            *("user_id", "username", "role", "joined_at", "ranking_count", "last_ranked_at"),
            *("groups", "daily_limit", "total_limit", "share_limit", "paused_at"),
        )


class MemberRequest(strict.Serializer):
    username = serializers.CharField(max_length=150)
    role = serializers.ChoiceField(choices=Membership.Role.choices, default=Membership.Role.ANNOTATOR)


class MemberChangeRequest(strict.Serializer):
    """Changes of a member. A limit of null is the project's, 0 is none."""

    role = serializers.ChoiceField(choices=Membership.Role.choices, required=False)
    groups = serializers.ListField(child=serializers.CharField(max_length=50), max_length=MAX_NAMES, required=False)
    daily_limit = serializers.IntegerField(min_value=0, max_value=MAX_LIMIT, allow_null=True, required=False)
    total_limit = serializers.IntegerField(min_value=0, max_value=MAX_LIMIT, allow_null=True, required=False)
    share_limit = serializers.IntegerField(min_value=0, max_value=100, allow_null=True, required=False)
    paused = serializers.BooleanField(required=False, help_text="A paused member gets no more comparisons.")


class InvitationSerializer(strict.ModelSerializer):
    """An invitation without its key, which is in the answer to its creation only."""

    state = serializers.SerializerMethodField()
    made_by = serializers.CharField(source="made_by.username", default=None, read_only=True, allow_null=True)

    class Meta:
        model = Invitation
        fields: tuple[str, ...] = (
            *("id", "role", "name", "places", "used", "state", "made_by", "created_at", "expires_at"),
        )

    @extend_schema_field(serializers.ChoiceField(choices=invitations.State.choices))
    def get_state(self, invitation: Invitation) -> str:
        return str(invitations.state_of(invitation))


class InvitationRequest(strict.Serializer):
    role = serializers.ChoiceField(choices=Membership.Role.choices, default=Membership.Role.ANNOTATOR)
    name = serializers.CharField(max_length=100, default="", allow_blank=True)
    places = serializers.IntegerField(min_value=1, max_value=invitations.MAX_PLACES, default=1)


class MadeInvitationSerializer(InvitationSerializer):
    """A new invitation with its link, which is in no later answer."""

    url = serializers.CharField(read_only=True)

    class Meta(InvitationSerializer.Meta):
        fields = (*InvitationSerializer.Meta.fields, "url")


class TokenSerializer(strict.ModelSerializer):
    """A token without its key. `scopes` or `projects` null: not limited by it."""

    projects = serializers.SerializerMethodField()

    class Meta:
        model = ApiToken
        fields: tuple[str, ...] = ("id", "name", "scopes", "projects", "created_at", "expires_at", "last_used_at")

    @extend_schema_field(serializers.ListField(child=serializers.SlugField(), allow_null=True))
    def get_projects(self, token: ApiToken) -> list[str] | None:
        if token.project_ids is None:
            return None
        return list(Project.objects.filter(pk__in=token.project_ids).order_by("slug").values_list("slug", flat=True))


class TokenRequest(strict.Serializer):
    """A new token. Without `scopes` and `projects` it may do all that its user may do."""

    name = serializers.CharField(max_length=100)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=list(scopes.SCOPES)), allow_empty=False, required=False
    )
    projects = serializers.ListField(child=serializers.SlugField(), allow_empty=False, required=False)
    days = serializers.IntegerField(
        min_value=1, max_value=tokens.MAX_DAYS, required=False, help_text="Until it expires; without it, never."
    )


class RotateRequest(strict.Serializer):
    """The rotation of a token: minutes for which the old one is still accepted."""

    overlap_minutes = serializers.IntegerField(min_value=0, max_value=7 * 24 * 60, default=60)


class IssuedTokenSerializer(TokenSerializer):
    """A new token with its key. The key is in no later answer, because only its digest is stored."""

    key = serializers.CharField(read_only=True)

    class Meta(TokenSerializer.Meta):
        fields = (*TokenSerializer.Meta.fields, "key")


def _project_body(membership: Membership) -> dict[str, Any]:
    return ProjectSerializer(membership.project, context={"roles": {membership.project_id: membership.role}}).data


@extend_schema(methods=["GET"], operation_id="projects_list", responses=ProjectSerializer(many=True))
@extend_schema(
    methods=["POST"], operation_id="projects_create", request=ProjectRequest, responses={201: ProjectSerializer}
)
@api_view(["GET", "POST"])
def project_list(request: Request) -> Response:
    """List the current user's projects by name, or create one. Staff only may create; they become its manager."""
    if request.method == "GET":
        memberships = progress.memberships_of(request.user)
        if (limit := getattr(request.auth, "project_ids", None)) is not None:
            memberships = memberships.filter(project_id__in=limit)
        return Response([_project_body(membership) for membership in memberships])
    members.check_administrator(request.user, _("Only staff may make projects: ask an administrator."))
    settings = strict.validated(ProjectRequest(data=request.data))
    project = projects.create_project(request.user, Project(**settings))
    return Response(_project_body(members.membership_of(request.user, project.slug)), status=201)


@extend_schema(methods=["GET"], operation_id="projects_get", responses=ProjectSerializer)
@extend_schema(
    methods=["PATCH"], operation_id="projects_change", request=ProjectSettingsRequest, responses=ProjectSerializer
)
@api_view(["GET", "PATCH"])
def project_detail(request: Request, slug: str) -> Response:
    """Return a project with its settings, or change settings. Managers only may change them."""
    if request.method == "GET":
        return Response(_project_body(members.membership_of(request.user, slug)))
    membership = members.manager_of(request.user, slug)
    changes = strict.validated(ProjectSettingsRequest(membership.project, data=request.data, partial=True))
    for name, value in changes.items():
        setattr(membership.project, name, value)
    projects.save_settings(membership.project)
    return Response(_project_body(membership))


@extend_schema(
    methods=["GET"], operation_id="members_list", parameters=[ListQuery], responses=MemberSerializer(many=True)
)
@extend_schema(methods=["POST"], operation_id="members_add", request=MemberRequest, responses={201: MemberSerializer})
@api_view(["GET", "POST"])
def member_list(request: Request, slug: str) -> Response:
    """List the members by name with their number of rankings, or add one by username. For managers."""
    project = members.manager_of(request.user, slug).project
    if request.method == "GET":
        return as_page(request, members.members_of(project), MemberSerializer, key="user__username", descends=False)
    added = members.add_member(project, **strict.validated(MemberRequest(data=request.data)))
    return Response(_member_body(project, added.user_id), status=201)


@extend_schema(methods=["GET"], operation_id="members_get", responses=MemberSerializer)
@extend_schema(
    methods=["PATCH"], operation_id="members_change", request=MemberChangeRequest, responses=MemberSerializer
)
@extend_schema(methods=["DELETE"], operation_id="members_remove", responses={204: None})
@api_view(["GET", "PATCH", "DELETE"])
def member_detail(request: Request, slug: str, user_id: int) -> Response:
    """Return a member, change role, groups, limits or pause, or remove the member. For managers."""
    project = members.manager_of(request.user, slug).project
    if request.method == "GET":
        return Response(_member_body(project, user_id))
    if request.method == "DELETE":
        members.remove_member(project, user_id)
        return Response(status=204)
    changes = strict.validated(MemberChangeRequest(data=request.data))
    if not changes:
        raise Invalid(_("Say what to change: the role, the groups, a limit or the pause."))
    if (role := changes.pop("role", None)) is not None:
        members.change_role(project, user_id, role)
    if (is_paused := changes.pop("paused", None)) is not None:
        (pauses.pause if is_paused else pauses.resume)(project, user_id, request.user)
    if changes:
        routing.change_work(project, user_id, **changes)
    return Response(_member_body(project, user_id))


def _member_body(project: Project, user_id: int) -> dict[str, Any]:
    member = members.members_of(project).filter(user_id=user_id).first()
    if member is None:
        raise NotFound(_("This project has no member with that number."))
    return MemberSerializer(member).data


@extend_schema(
    methods=["GET"], operation_id="invitations_list", parameters=[ListQuery], responses=InvitationSerializer(many=True)
)
@extend_schema(
    methods=["POST"],
    operation_id="invitations_create",
    request=InvitationRequest,
    responses={201: MadeInvitationSerializer},
)
@api_view(["GET", "POST"])
def invitation_list(request: Request, slug: str) -> Response:
    """List the invitations, or make one: a link with which `places` people join within 7 days. For managers.

    The link is in the answer to the creation only.
    """
    manager = members.manager_of(request.user, slug)
    if request.method == "GET":
        return as_page(request, invitations.invitations_of(manager.project), InvitationSerializer, key="pk")
    invitation, key = invitations.invite(manager, **strict.validated(InvitationRequest(data=request.data)))
    url = request.build_absolute_uri(reverse("join", args=[key]))
    response = Response({**InvitationSerializer(invitation).data, "url": url}, status=201)
    sentence = _(
        "This request has made an invitation already, whose link was shown once: withdraw it and make another."
    )
    return show_once(response, sentence, id=invitation.pk)


@extend_schema(methods=["GET"], operation_id="invitations_get", responses=InvitationSerializer)
@extend_schema(methods=["DELETE"], operation_id="invitations_withdraw", responses={204: None})
@api_view(["GET", "DELETE"])
def invitation_detail(request: Request, slug: str, invitation_id: int) -> Response:
    """Return an invitation, or withdraw it; those who have joined stay. For managers."""
    project = members.manager_of(request.user, slug).project
    if request.method == "GET":
        return Response(InvitationSerializer(invitations.find_invitation(project, invitation_id)).data)
    invitations.revoke(project, invitation_id)
    return Response(status=204)


@extend_schema(methods=["GET"], operation_id="tokens_list", responses=TokenSerializer(many=True))
@extend_schema(
    methods=["POST"], operation_id="tokens_create", request=TokenRequest, responses={201: IssuedTokenSerializer}
)
@api_view(["GET", "POST"])
def token_list(request: Request) -> Response:
    """List the current user's tokens, or create one. The key is in the answer to the creation only."""
    if request.method == "GET":
        return Response(TokenSerializer(request.user.api_tokens.order_by("pk"), many=True).data)
    return _issued(*tokens.issue_token(request.user, **strict.validated(TokenRequest(data=request.data))))


@extend_schema(methods=["GET"], operation_id="tokens_get", responses=TokenSerializer)
@extend_schema(methods=["DELETE"], operation_id="tokens_revoke", responses={204: None})
@api_view(["GET", "DELETE"])
def token_detail(request: Request, token_id: int) -> Response:
    """Return a token of the current user, or revoke it: requests with it are refused from now on."""
    if request.method == "GET":
        return Response(TokenSerializer(tokens.find_own_token(request.user, token_id)).data)
    tokens.revoke_token(request.user, token_id)
    return Response(status=204)


@extend_schema(operation_id="tokens_rotate", request=RotateRequest, responses={201: IssuedTokenSerializer})
@api_view(["POST"])
def token_rotate(request: Request, token_id: int) -> Response:
    """Make a token like this one, and let this one expire after an overlap. The key is in this answer only."""
    minutes = strict.validated(RotateRequest(data=request.data))["overlap_minutes"]
    return _issued(*tokens.rotate_token(request.user, token_id, timedelta(minutes=minutes)))


def _issued(token: ApiToken, key: str) -> Response:
    sentence = _("This request has made a token already, whose key was shown once: revoke it and make another.")
    return show_once(Response({**TokenSerializer(token).data, "key": key}, status=201), sentence, id=token.pk)
