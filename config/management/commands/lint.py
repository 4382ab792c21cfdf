"""`manage.py lint`: style, format, types, and models without a migration."""

import subprocess
import sys
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

TOOLS = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])


class Command(BaseCommand):
    help = "Check style, types and migrations: ruff, mypy, makemigrations --check. All run, even if one fails."

    def handle(self, *args: Any, **options: Any) -> None:
        failed = [
            tool for tool in TOOLS if subprocess.run([sys.executable, "-m", *tool], cwd=settings.BASE_DIR).returncode
        ]
        try:
            call_command("makemigrations", check_changes=True, dry_run=True)
        except SystemExit:
            failed.append(["makemigrations", "--check"])
        if failed:
            raise CommandError(f"not clean: {', '.join(' '.join(words) for words in failed)}.")
