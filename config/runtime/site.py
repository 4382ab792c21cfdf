"""What a site needs before its first request: its secret key, its tables, its broker's tables, its static files."""

import hashlib
from collections.abc import Callable

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command


def prepare(report: Callable[[str], None]) -> None:
    """Bring the database and the static files up to date. Quick when they already are."""
    report("checking the tables")
    call_command("migrate", verbosity=0, interactive=False)
    collect_static_files(report)


def collect_static_files(report: Callable[[str], None]) -> None:
    """Run collectstatic when a source file changed since the last time: hashing and zipping all takes seconds."""
    found = hashlib.sha256()
    for finder in get_finders():
        for path, storage in finder.list([]):
            full = storage.path(path)
            found.update(f"{path} {storage.size(path)} {storage.get_modified_time(path)} {full}\n".encode())
    stamp = settings.STATIC_ROOT / ".collected"
    if stamp.exists() and stamp.read_text() == found.hexdigest():
        return
    report("collecting the static files")
    call_command("collectstatic", verbosity=0, interactive=False, clear=True)
    stamp.write_text(found.hexdigest())
