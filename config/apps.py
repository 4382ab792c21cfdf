from django.apps import AppConfig


class ConfigConfig(AppConfig):
    """The composition root is an app so that its commands (demo, up, bench) are found."""

    name = "config"

    def ready(self) -> None:
        import config.celery  # noqa: F401 (tasks sent from any process go through this application)
