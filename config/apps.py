from typing import Any

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class ConfigConfig(AppConfig):
    """The composition root is an app so that its commands (demo, up, bench) are found."""

    name = "config"

    def ready(self) -> None:
        import config.celery  # noqa: F401 (tasks sent from any process go through this application)

        # Once a migrate: the signal comes for each app that has tables, and this one has none.
        post_migrate.connect(install_broker, sender=apps.get_app_config("training"))


def install_broker(**kwargs: Any) -> None:
    """Migrating brings the broker's tables too, so that nobody has to know that there are any."""
    from config.runtime import broker

    broker.install()
