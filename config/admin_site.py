"""Django's admin app with our site."""

from django.contrib.admin.apps import AdminConfig


class AuditedAdminConfig(AdminConfig):
    """Its pages record what they change in the audit log."""

    default_site = "feedback.admin_site.AuditedSite"
