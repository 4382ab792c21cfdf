"""The Django app `config`."""

from typing import Any

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class ConfigConfig(AppConfig):
    """App of the composition root, so that Django finds its commands (demo, up, bench, lint)."""

    name = "config"

    def ready(self) -> None:
        import config.celery  # noqa: F401 (tasks sent from any process go through this application)

        # Once per migrate: the signal comes for each app with tables, so one sender is enough.
        post_migrate.connect(install_broker, sender=apps.get_app_config("training"))


def install_broker(**kwargs: Any) -> None:
    """Create the broker's tables after a migration."""
    from config.runtime import broker

    broker.install()
