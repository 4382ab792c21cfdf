"""API of rounds before they start: their settings, the rankings that they would learn from, and the estimate."""

import json
from typing import Any

from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from feedback.actions import members
from feedback.api import strict
from feedback.api.views import api_view
from feedback.errors import Invalid
from training import reports
from training.rounds import declared
from training.rounds import settings as round_settings
from training.rounds.estimates import Estimate
from training.rounds.learned_rankings import LearnedRankings
from training.rounds.plan import Plan, plan_of
from training.rounds.recipes import recipe_of
from training.rounds.recipes.description import Sections
from training.rounds.start import project_recipe, settings_now


class SettingSerializer(strict.Serializer):
    """A setting that a round by a recipe uses."""

    section = serializers.CharField(help_text='Section of settings; "common" holds for all programs of the round.')
    name = serializers.CharField()
    group = serializers.CharField(help_text="Label of the section.")
    label = serializers.CharField()
    help = serializers.CharField()
    kind = serializers.CharField(source="kind_name")
    default = serializers.JSONField(help_text="Value without a change; null: the number of the round.")
    limits = serializers.DictField(help_text="low and high (inclusive), above and below (exclusive), choices.")


class SettingsQuery(strict.Serializer):
    recipe = serializers.CharField(required=False, default=None, help_text="Name of a recipe; default: the project's.")


class PersonSerializer(strict.Serializer):
    """An annotator with the number of rankings that the round would learn from."""

    username = serializers.CharField()
    is_active = serializers.BooleanField(help_text="False: deactivated. These rankings are learned from, too.")
    rankings = serializers.IntegerField()


class LeftOutSerializer(strict.Serializer):
    """Rankings that the round would not learn from, and why."""

    reason = serializers.CharField()
    sentence = serializers.CharField()
    rankings = serializers.IntegerField()


class LearnedRankingsSerializer(strict.Serializer):
    """The rankings that a round would learn from, counted by the function that writes its files."""

    rankings = serializers.IntegerField()
    new = serializers.IntegerField(help_text="Of them since the cut-off of the last round that learned.")
    since = serializers.DateTimeField(allow_null=True, help_text="Time of the first one.")
    until = serializers.DateTimeField(allow_null=True, help_text="Time of the last one.")
    people = PersonSerializer(many=True)
    left_out = LeftOutSerializer(many=True)


class RoundEstimateSerializer(strict.Serializer):
    """Estimate of a round's time and memory. null: not known."""

    seconds = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True, help_text="Lower end of the range by past rounds.")
    high = serializers.FloatField(allow_null=True, help_text="Upper end of the range by past rounds.")
    by_stage = serializers.DictField(child=serializers.FloatField(allow_null=True), help_text="Seconds of each stage.")
    memory_gb = serializers.FloatField(allow_null=True, help_text="Memory of the largest program, in 10⁹ bytes.")
    model_gb = serializers.FloatField(
        allow_null=True, help_text="Of it for weights, gradients and optimizer state, by the number of parameters."
    )
    is_gpu_memory = serializers.BooleanField()
    parameters = serializers.IntegerField(allow_null=True, help_text="Number of parameters of the base.")
    rounds = serializers.ListField(child=serializers.IntegerField(), help_text="Past rounds that it is from.")


class PlanSerializer(strict.Serializer):
    """A round that could start now. Nothing is stored."""

    refusal = serializers.CharField(help_text='Why it cannot start now, or "".')
    recipe = serializers.CharField(allow_null=True)
    base = serializers.CharField(allow_null=True)
    settings = serializers.DictField(allow_null=True, help_text="Complete settings; null: they cannot be used.")
    rankings = LearnedRankingsSerializer(allow_null=True, help_text="null: it reads no rankings.")
    estimate = RoundEstimateSerializer(allow_null=True)


class PlanQuery(strict.Serializer):
    settings = serializers.CharField(required=False, default="{}", help_text="Settings of the round, as JSON.")
    learns = serializers.BooleanField(required=False, default=True, help_text="As in the request that starts a round.")
    checkpoint = serializers.IntegerField(
        required=False, default=None, help_text="As in the request that starts a round."
    )


@extend_schema(operation_id="rounds_settings", parameters=[SettingsQuery], responses=SettingSerializer(many=True))
@api_view(["GET"])
def settings_list(request: Request, slug: str) -> Response:
    """List the settings that a round by a recipe uses, with the project's defaults. Others are not listed."""
    project = members.manager_of(request.user, slug).project
    name = strict.validated_query(SettingsQuery, request)["recipe"]
    settings, other = (settings_now(project, name, seed) for seed in (0, 1))
    recipe = recipe_of(settings)
    rows = []
    for group in declared.groups_of(recipe, settings):
        for one in group.settings:
            section = one.section if one.section != declared.COMMON else recipe.programs[-1]
            default = settings[section][one.name]
            follows_round = default != other[section][one.name]
            rows.append(_row(one, str(group.label), None if follows_round else default))
    return Response(SettingSerializer(rows, many=True).data)


@extend_schema(operation_id="rounds_plan", parameters=[PlanQuery], responses=PlanSerializer)
@api_view(["GET"])
def plan_detail(request: Request, slug: str) -> Response:
    """Return what a round with these settings would learn from, and how much time and memory it would need."""
    project = members.manager_of(request.user, slug).project
    query = strict.validated_query(PlanQuery, request)
    settings = _settings(query["settings"])
    learns = query["learns"] and round_settings.chosen_recipe(settings, project_recipe(project)).learns
    chosen = query["checkpoint"]
    checkpoint = reports.checkpoint_of(project, chosen) if chosen is not None and not learns else None
    plan = plan_of(project, settings, learns=learns, base=checkpoint)
    return Response(PlanSerializer(_as_dict(plan)).data)


def _settings(text: str) -> Sections:
    """Return the sections in a query. Raise Invalid if they are none."""
    try:
        sections = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(_("settings is not JSON: %(error)s.") % {"error": error}) from error
    round_settings.recipe_in(sections)
    result: Sections = sections
    return result


def _row(one: declared.Declared, group: str, default: Any) -> dict[str, Any]:
    names = ("section", "name", "label", "help", "kind_name", "limits")
    return {**{name: getattr(one, name) for name in names}, "group": group, "default": default}


def _as_dict(plan: Plan) -> dict[str, Any]:
    rankings: LearnedRankings | None = plan.rankings
    estimate: Estimate | None = plan.estimate
    made = plan.round
    return {
        "refusal": plan.refusal,
        "recipe": made.recipe.name if made else None,
        "base": str(made.base) if made else None,
        "settings": made.settings if made else None,
        "rankings": rankings,
        "estimate": estimate,
    }
