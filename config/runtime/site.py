"""Tables and static files, brought up to date before the first request."""

import hashlib
from collections.abc import Callable

from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.management import call_command


def prepare(report: Callable[[str], None], serves_pages: bool = True) -> None:
    """Migrate the database and, for the web service, collect the static files; fast if both are up to date."""
    report("checking the tables")
    call_command("migrate", verbosity=0, interactive=False)
    if serves_pages:
        collect_static_files(report)


def collect_static_files(report: Callable[[str], None]) -> None:
    """Run collectstatic if a source file changed since the last run: hashing and compressing all takes seconds."""
    sources = hashlib.sha256()
    for finder in get_finders():
        for path, storage in finder.list([]):
            full = storage.path(path)
            sources.update(f"{path} {storage.size(path)} {storage.get_modified_time(path)} {full}\n".encode())
    stamp = settings.STATIC_ROOT / ".collected"
    if stamp.exists() and stamp.read_text() == sources.hexdigest():
        return
    report("collecting the static files")
    call_command("collectstatic", verbosity=0, interactive=False, clear=True)
    stamp.write_text(sources.hexdigest())
