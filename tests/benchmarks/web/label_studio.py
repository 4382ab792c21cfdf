"""Label Studio: its environment, its database, and its web service.

gunicorn runs its `core.wsgi` with two workers. Telemetry, error reports and the search for newer versions are off; they
could only make it slower. Its annotators are members of one organisation and sign in with its form.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from config.runtime.errors import SetupError
from tests.benchmarks import peers
from tests.benchmarks.web.browser import Browser
from tests.benchmarks.web.cluster import Cluster
from tests.benchmarks.web.processes import free_port, running, tail, wait_for
from tests.benchmarks.web.service import Service

PEER = "label-studio-1.23"
PASSWORD = "long-enough-for-a-bench"
CONFIG = (
    '<View><Text name="prompt" value="$prompt"/><Pairwise name="pw" toName="a,b"/>'
    '<Text name="a" value="$a"/><Text name="b" value="$b"/></View>'
)
AT_ONCE = 5000  # tasks of one import
TWICE = """
    SELECT count(*) FROM (
        SELECT FROM task_completion WHERE NOT was_cancelled GROUP BY task_id HAVING count(*) > 1) AS twice
"""
PEOPLE = """
import os, sys, django
os.environ["DJANGO_SETTINGS_MODULE"] = "core.settings.label_studio"
django.setup()
from organizations.models import Organization
from users.models import User
organization = Organization.objects.get()
for email in sys.argv[2:]:
    user = User.objects.create_user(email, sys.argv[1])
    organization.add_user(user)
    user.active_organization = organization
    user.save(update_fields=["active_organization"])
"""


@dataclass
class LabelStudio:
    cluster: Cluster
    folder: Path
    product: str = "label_studio"
    people: int = 0

    def prepare(self, database: str, tasks: int, people: int) -> None:
        """Make a database with one project, its tasks, and its people."""
        self.cluster.create(database)
        self.people = people
        self._run([str(self._bin / "label-studio"), "init", "bench", "--username", _email(0), "--password", PASSWORD,
                   "--no-browser"], database)  # fmt: skip
        self._run([str(self._bin / "python"), "-c", PEOPLE, PASSWORD, *map(_email, range(1, people))], database)
        with self.serve(database) as service:
            load(Browser(service.port, service.cookies[0]), tasks)
        with self.cluster.connect(database) as connection:
            connection.execute("VACUUM ANALYZE")

    @contextmanager
    def serve(self, database: str) -> Iterator[Service]:
        port, log = free_port(), self.folder / "label-studio.log"
        command = [str(self._bin / "gunicorn"), "-w", "2", "--timeout", "120", "-b", f"127.0.0.1:{port}", "core.wsgi"]
        with running(command, log, folder=self._package, environment=self._environment(database)) as process:
            wait_for(f"http://127.0.0.1:{port}/health", process, log)
            yield Service(self.product, port, process, [sign_in(port, _email(index)) for index in range(self.people)])

    def doubled(self, database: str) -> int:
        with self.cluster.connect(database) as connection:
            return connection.execute(TWICE).fetchone()[0]

    @property
    def _bin(self) -> Path:
        return peers.python_of(PEER).parent

    @property
    def _package(self) -> Path:
        return next(self._bin.parent.glob("lib/python*/site-packages/label_studio"))

    def _run(self, command: list[str], database: str) -> None:
        log = self.folder / "label-studio-setup.log"
        with log.open("ab") as output:
            environment = self._environment(database)
            status = subprocess.run(
                command, cwd=self._package, env=environment, stdout=output, stderr=output
            ).returncode
        if status:
            raise SetupError(f"Label Studio could not be set up; the end of its log:\n{tail(log)}")

    def _environment(self, database: str) -> dict[str, str]:
        where = {"DJANGO_DB": "default", "POSTGRE_NAME": database, "POSTGRE_USER": "bench", "POSTGRE_PASSWORD": "",
                 "POSTGRE_HOST": str(self.cluster.socket), "POSTGRE_PORT": "5432"}  # fmt: skip
        quiet = {"COLLECT_ANALYTICS": "0", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": "", "LATEST_VERSION_CHECK": "0",
                 "LOG_LEVEL": "ERROR", "DEBUG": "0"}  # fmt: skip
        own = {"LABEL_STUDIO_BASE_DATA_DIR": str(self.folder / "label-studio"),
               "DJANGO_SETTINGS_MODULE": "core.settings.label_studio"}  # fmt: skip
        return dict(os.environ) | where | quiet | own


def sign_in(port: int, email: str) -> dict[str, str]:
    """Sign in and return the cookies."""
    browser = Browser(port)
    form = browser.get("/user/login/").decode()
    hidden = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
    token = hidden.group(1) if hidden else browser.cookies.get("csrftoken", "")
    browser.post("/user/login/", [("csrfmiddlewaretoken", token), ("email", email), ("password", PASSWORD)])
    return browser.cookies


def load(browser: Browser, tasks: int) -> None:
    """Configure the project and import tasks with texts as long as Accord's."""
    as_json = {"Content-Type": "application/json"}
    settings = {"label_config": CONFIG, "sampling": "Sequential sampling", "maximum_annotations": 1}
    browser.send("PATCH", "/api/projects/1/", json.dumps(settings).encode(), as_json)
    rows = [
        {"prompt": f"prompt {i} " + "x " * 30, "a": f"a {i} " + "word " * 60, "b": f"b {i} " + "word " * 60}
        for i in range(tasks)
    ]
    for first in range(0, tasks, AT_ONCE):
        body = json.dumps(rows[first : first + AT_ONCE]).encode()
        browser.send("POST", "/api/projects/1/import", body, as_json)


def _email(index: int) -> str:
    return f"person-{index}@example.org"
