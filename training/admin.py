"""Admin site: read-only views of rounds and checkpoints, which only their own functions change."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest

from feedback.errors import Invalid
from training.models import Checkpoint, LoopSettings, Promotion, Round
from training.rounds import settings as round_settings


class ReadOnly(admin.ModelAdmin):
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


@admin.register(Round)
class RoundAdmin(ReadOnly):
    list_display = ("project", "number", "status", "stage", "base", "worker", "attempt", "heartbeat_at", "created_at")
    list_filter = ("status", "project")


@admin.register(Checkpoint)
class CheckpointAdmin(ReadOnly):
    list_display = ("source", "project", "kind", "is_served", "verdict", "path", "created_at")
    list_filter = ("project", "kind", "verdict", "is_served")


@admin.register(Promotion)
class PromotionAdmin(ReadOnly):
    list_display = ("checkpoint", "replaced", "is_roll_back", "actor", "created_at")


class LoopSettingsForm(forms.ModelForm):
    class Meta:
        model = LoopSettings
        fields = ("project", "round_every", "settings")

    def clean_settings(self) -> Any:
        settings = self.cleaned_data["settings"]
        try:
            round_settings.check_defaults(settings)
        except Invalid as refusal:
            raise forms.ValidationError(refusal.message) from refusal
        return settings


@admin.register(LoopSettings)
class LoopSettingsAdmin(admin.ModelAdmin):
    form = LoopSettingsForm
    list_display = ("project", "round_every")
