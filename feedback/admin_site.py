"""Django's admin site with the audit log: every page of it that writes records its acts, of any app."""

from typing import Any

from django.contrib import admin
from django.db import transaction
from django.forms import ModelForm
from django.http import HttpRequest

from feedback import audit
from feedback.models import Project

SECRET = {
    "password",
    "digest",
    "blinding_key",
    "salt",
    "former_salt",
    "data",
    "secret",
    "token",
}  # fields whose values no log has


class AuditedAdmin(admin.ModelAdmin):
    """Base class of the admin pages that write: each act is recorded in the audit log, in its transaction."""

    def save_model(self, request: HttpRequest, obj: Any, form: ModelForm, change: bool) -> None:
        self.remember(request, obj, form, change)
        super().save_model(request, obj, form, change)

    def remember(self, request: HttpRequest, obj: Any, form: ModelForm, change: bool) -> None:
        """Keep the values before a change, without secrets, until it is recorded."""
        concrete = {field.name for field in obj._meta.concrete_fields} - SECRET
        names = [name for name in form.changed_data if name in concrete]
        before = audit.stored_values_of(obj, names) if change and names else {}
        request.audited = before, audit.values_of(obj, names)

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self._record("admin.add", request, obj, message)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self._record("admin.change", request, obj, message)
        return super().log_change(request, obj, message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        for obj in queryset:
            names = [field.name for field in obj._meta.concrete_fields if field.name not in SECRET]
            audit.record("admin.delete", _project_of(obj), obj, before=audit.values_of(obj, names))
        return super().log_deletions(request, queryset)

    @transaction.atomic  # the action "delete selected" has no transaction of its own
    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return super().changelist_view(request, extra_context)

    def _record(self, act: str, request: HttpRequest, obj: Any, message: Any) -> None:
        nothing: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
        before, after = getattr(request, "audited", nothing)
        audit.record(act, _project_of(obj), obj, before=before, after={**after, "changes": message})


def _project_of(obj: Any) -> Project | None:
    project = obj if isinstance(obj, Project) else getattr(obj, "project", None)
    return project if isinstance(project, Project) else None


class AuditedSite(admin.AdminSite):
    """The site of all admin pages."""

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        """Register pages, audited whatever class they have."""
        page = admin_class or admin.ModelAdmin
        if not issubclass(page, AuditedAdmin):
            page = type(f"Audited{page.__name__}", (AuditedAdmin, page), {})
        super().register(model_or_iterable, page, **options)
