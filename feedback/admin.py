"""Django's admin site for superusers: accounts and settings can be changed, feedback can only be read."""

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.db import transaction
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_post_parameters

from feedback.admin_site import AuditedAdmin
from feedback.models import (
    ApiToken,
    Comparison,
    Completion,
    Membership,
    Project,
    Prompt,
    Ranking,
    Review,
    Skip,
    Source,
    Trial,
    User,
)


@admin.register(User)
class AuditedUserAdmin(AuditedAdmin, UserAdmin):
    """Accounts."""

    @method_decorator([sensitive_post_parameters(), transaction.atomic])
    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> Any:
        return super().user_change_password(request, id, form_url)


class ReadOnlyAdmin(admin.ModelAdmin):
    """A view of rows that cannot be added, changed or deleted here: only `feedback.actions` and imports write them."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class MembershipInline(admin.TabularInline):
    model = Membership
    extra = 0
    autocomplete_fields = ("user",)


@admin.register(Project)
class ProjectAdmin(AuditedAdmin):
    list_display = ("slug", "name", "archived_at", "created_at")
    search_fields = ("slug", "name")
    inlines = (MembershipInline,)

    def save_model(self, request: HttpRequest, obj: Project, form: ModelForm, change: bool) -> None:
        """Save what the form changed only: a trial may have started since the project was read."""
        self.remember(request, obj, form, change)
        obj.save(update_fields=form.changed_data if change else None)


@admin.register(Prompt)
class PromptAdmin(ReadOnlyAdmin):
    list_display = ("id", "project", "split", "external_id", "created_at")
    list_filter = ("project", "split")


@admin.register(Source)
class SourceAdmin(ReadOnlyAdmin):
    list_display = ("name", "project", "kind", "created_at")
    list_filter = ("project", "kind")


@admin.register(Completion)
class CompletionAdmin(ReadOnlyAdmin):
    list_display = ("id", "source", "created_at")
    list_select_related = ("source",)


@admin.register(Comparison)
class ComparisonAdmin(ReadOnlyAdmin):
    list_display = ("id", "project", "size", "wanted_rankings", "open_slots", "ranking_count", "priority")
    list_filter = ("project",)


@admin.register(Trial)
class TrialAdmin(ReadOnlyAdmin):
    list_display = ("id", "project", "number", "share", "decision", "chosen", "created_at", "ended_at")
    list_filter = ("project", "decision")
    list_select_related = ("project", "chosen")


@admin.register(Ranking)
class RankingAdmin(ReadOnlyAdmin):
    list_display = ("id", "project", "annotator", "ranks", "revision", "is_live", "standing", "seconds", "created_at")
    list_filter = ("project", "is_live", "standing")
    list_select_related = ("project", "annotator")


@admin.register(Review)
class ReviewAdmin(ReadOnlyAdmin):
    list_display = ("id", "project", "kind", "reviewer", "annotator", "ranking_count", "created_at", "undone_at")
    list_filter = ("project", "kind")
    list_select_related = ("project", "reviewer", "annotator")


@admin.register(Skip)
class SkipAdmin(ReadOnlyAdmin):
    list_display = ("comparison", "annotator", "reason", "created_at")
    list_select_related = ("comparison", "annotator")


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnlyAdmin):
    """A view of tokens, which can be deleted to revoke them."""

    list_display = ("name", "user", "created_at", "last_used_at")
    fields = ("name", "user", "created_at", "last_used_at")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.is_superuser
