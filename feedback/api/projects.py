"""Projects, their members, and one's own tokens."""

from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members, projects, tokens
from feedback.api import strict
from feedback.api.idempotency import idempotent
from feedback.api.views import api_view
from feedback.errors import Forbidden
from feedback.models import ApiToken, Membership, Project
from feedback.queue import sampling
from feedback.reports import progress

# Every editable field of a project but its identity and its state. Labels, help texts and limits are the model's.
SETTINGS = tuple(
    field.name for field in Project._meta.fields if field.editable and field.name not in ("id", "slug", "archived_at")
)
# The settings that annotators need. The others would tell them how often they are tested, and by what.
FOR_EVERYBODY = (
    "name",
    "guidelines",
    "lease_minutes",
    "comparisons_ahead",
    "strength_points",
    "one_key_pairs",
    "flags",
    "attributes",
)


class ProjectSerializer(strict.ModelSerializer):
    """A project and the caller's role in it. Managers see all settings; others those that they need to rank."""

    role = serializers.SerializerMethodField()

    class Meta:
        model = Project
        fields = ("slug", *SETTINGS, "role", "created_at", "archived_at")
        extra_kwargs = {name: {"required": False} for name in SETTINGS if name not in FOR_EVERYBODY}

    def to_representation(self, project: Project) -> dict[str, Any]:
        shown = super().to_representation(project)
        if shown["role"] != Membership.Role.MANAGER:
            for name in set(SETTINGS) - set(FOR_EVERYBODY):
                del shown[name]
        return shown

    def get_role(self, project: Project) -> str:
        return self.context["roles"][project.pk]


def _sampling_rule() -> serializers.ChoiceField:
    """Return the field of `Project.sampling_rule`: the model, which knows no rules, cannot list the choices."""
    field = Project._meta.get_field("sampling_rule")
    label, help_text = field.verbose_name, field.help_text
    return serializers.ChoiceField(sorted(sampling.RULES), required=False, label=label, help_text=help_text)


class ProjectRequest(strict.ModelSerializer):
    """A new project. Only its slug and name are required."""

    sampling_rule = _sampling_rule()

    class Meta:
        model = Project
        fields = ("slug", *SETTINGS)


class ProjectSettings(strict.ModelSerializer):
    """Settings to change. They hold for what comes in from now on."""

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
        fields = ("user_id", "username", "role", "joined_at", "ranking_count", "last_ranked_at")


class MemberRequest(strict.Serializer):
    username = serializers.CharField(max_length=150)
    role = serializers.ChoiceField(choices=Membership.Role.choices, default=Membership.Role.ANNOTATOR)


class RoleRequest(strict.Serializer):
    role = serializers.ChoiceField(choices=Membership.Role.choices)


class TokenSerializer(strict.ModelSerializer):
    class Meta:
        model = ApiToken
        fields: tuple[str, ...] = ("id", "name", "created_at", "last_used_at")


class TokenRequest(strict.Serializer):
    name = serializers.CharField(max_length=100)


class TokenIssued(TokenSerializer):
    """The key is shown this once: only its digest is kept."""

    key = serializers.CharField(read_only=True)

    class Meta(TokenSerializer.Meta):
        fields = (*TokenSerializer.Meta.fields, "key")


def _shown(membership: Membership) -> dict:
    return ProjectSerializer(membership.project, context={"roles": {membership.project_id: membership.role}}).data


@extend_schema(methods=["GET"], operation_id="projects_list", responses=ProjectSerializer(many=True))
@extend_schema(
    methods=["POST"], operation_id="projects_create", request=ProjectRequest, responses={201: ProjectSerializer}
)
@api_view(["GET", "POST"])
@idempotent
def project_list(request: Request) -> Response:
    """One's own projects by name; or a new one, for staff, with oneself as its manager."""
    if request.method == "GET":
        return Response([_shown(membership) for membership in progress.memberships_of(request.user)])
    if not request.user.is_staff:
        raise Forbidden(_("Only staff may make projects: ask an administrator."))
    given = ProjectRequest(data=request.data)
    given.is_valid(raise_exception=True)
    project = projects.create_project(request.user, Project(**given.validated_data))
    return Response(_shown(members.membership_of(request.user, project.slug)), status=201)


@extend_schema(methods=["GET"], operation_id="projects_get", responses=ProjectSerializer)
@extend_schema(methods=["PATCH"], operation_id="projects_change", request=ProjectSettings, responses=ProjectSerializer)
@api_view(["GET", "PATCH"])
def project_detail(request: Request, slug: str) -> Response:
    """A project's settings; managers may change them."""
    if request.method == "GET":
        return Response(_shown(members.membership_of(request.user, slug)))
    membership = members.manager_of(request.user, slug)
    given = ProjectSettings(membership.project, data=request.data, partial=True)
    given.is_valid(raise_exception=True)
    for name, value in given.validated_data.items():
        setattr(membership.project, name, value)
    projects.save_settings(membership.project)
    return Response(_shown(membership))


@extend_schema(methods=["GET"], operation_id="members_list", responses=MemberSerializer(many=True))
@extend_schema(methods=["POST"], operation_id="members_add", request=MemberRequest, responses={201: MemberSerializer})
@api_view(["GET", "POST"])
@idempotent
def member_list(request: Request, slug: str) -> Response:
    """The members by name, with what they have done; or one more, by user name. For managers."""
    project = members.manager_of(request.user, slug).project
    if request.method == "GET":
        return Response(MemberSerializer(members.members_of(project), many=True).data)
    given = MemberRequest(data=request.data)
    given.is_valid(raise_exception=True)
    added = members.add_member(project, **given.validated_data)
    return Response(_member(project, added.user_id), status=201)


@extend_schema(methods=["PATCH"], operation_id="members_change", request=RoleRequest, responses=MemberSerializer)
@extend_schema(methods=["DELETE"], operation_id="members_remove", responses={204: None})
@api_view(["PATCH", "DELETE"])
def member_detail(request: Request, slug: str, user_id: int) -> Response:
    """Change a member's role, or end the membership; their rankings stay. For managers."""
    project = members.manager_of(request.user, slug).project
    if request.method == "DELETE":
        members.remove_member(project, user_id)
        return Response(status=204)
    given = RoleRequest(data=request.data)
    given.is_valid(raise_exception=True)
    members.change_role(project, user_id, given.validated_data["role"])
    return Response(_member(project, user_id))


def _member(project: Project, user_id: int) -> dict:
    return MemberSerializer(members.members_of(project).get(user_id=user_id)).data


@extend_schema(methods=["GET"], operation_id="tokens_list", responses=TokenSerializer(many=True))
@extend_schema(methods=["POST"], operation_id="tokens_create", request=TokenRequest, responses={201: TokenIssued})
@api_view(["GET", "POST"])
def token_list(request: Request) -> Response:
    """One's own tokens; or a new one, whose key is in this answer and nowhere else."""
    if request.method == "GET":
        return Response(TokenSerializer(request.user.api_tokens.order_by("pk"), many=True).data)
    given = TokenRequest(data=request.data)
    given.is_valid(raise_exception=True)
    token, key = tokens.issue_token(request.user, given.validated_data["name"])
    return Response({**TokenSerializer(token).data, "key": key}, status=201)


@extend_schema(operation_id="tokens_revoke", responses={204: None})
@api_view(["DELETE"])
def token_detail(request: Request, token_id: int) -> Response:
    """Revoke one's own token: whoever uses it is refused from now on."""
    tokens.revoke_token(request.user, token_id)
    return Response(status=204)
