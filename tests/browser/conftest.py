"""Fixtures: a real Chromium against a real server.

Screenshots go to `screenshots/` in the data folder, where tests marked full run: with a path, --full or in CI.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from config.runtime import site
from feedback import imports
from feedback.models import User
from tests.lengths import is_full
from tests.training.services import ForkedWorker, using_broker, worker

# Playwright runs an event loop in this thread; Django would refuse synchronous queries because of it.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"

# The shell draws the same pages with two thirds of the CPU time: it has no browser window around them.
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
SCREENSHOTS = settings.DATA_DIR / "screenshots"
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
PATIENCE = 30_000  # milliseconds until a test gives up; a busy machine takes more than the default of five seconds
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(autouse=True)
def data_folder(settings, tmp_path) -> None:
    """Give each test a data folder of its own: tests run side by side, and round 1 of "support" has one folder."""
    settings.DATA_DIR = tmp_path / "data"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if found is None:
        sentence = "no Chromium on this machine: the pages are NOT tested (Debian: apt install chromium)"
        pytest.fail(sentence) if os.environ.get("CI") else pytest.skip(sentence)
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE)
        launched = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def static_files() -> None:
    """Collect static files with hashed names, as in production."""
    site.collect_static_files(lambda sentence: None)


class UserPages:
    """Pages of a browser, opened as users, and the errors in their consoles."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.browser, self.address = browser, address
        self.errors: list[str] = []
        self.expected_errors: list[str] = []  # parts of errors that a test provokes
        self.pages: list[Page] = []
        self.pending_requests: set[Request] = set()

    def open(self, name: str | None = None, *, phone: bool = False, dark: bool = False, language: str = "en") -> Page:
        """Open a page in a new browser context, signed in as `name` (the password is `<name>-password`)."""
        context = self.browser.new_context(
            base_url=self.address,
            viewport=PHONE if phone else DESKTOP,
            is_mobile=phone,
            has_touch=phone,
            color_scheme="dark" if dark else "light",
            locale=language,
        )
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        self.pages.append(page)
        page.on("console", self._record)
        page.on("request", lambda request: self.pending_requests.add(request))
        page.on("requestfinished", lambda request: self.pending_requests.discard(request))
        page.on("requestfailed", lambda request: self.pending_requests.discard(request))
        page.on("pageerror", lambda error: self.errors.append(f"{page.url}: {error}"))
        if name is not None:
            self._begin_session(page, name)
        return page

    def _begin_session(self, page: Page, name: str) -> None:
        """Sign in without the sign-in page, which would be a third of all pages that the tests load."""
        client = Client()
        client.force_login(User.objects.get(username=name))
        cookie = client.cookies[settings.SESSION_COOKIE_NAME]
        page.context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": self.address, "httpOnly": True}])

    def sign_in(self, page: Page, name: str) -> None:
        page.goto("/sign-in/")
        page.locator("[name=username]").fill(name)
        page.locator("[name=password]").fill(f"{name}-password")
        page.locator("main button.primary").click()
        page.wait_for_url(lambda url: "/sign-in/" not in url)

    def _record(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.location.get('url', '')}: {message.text}")

    def close(self) -> None:
        """Close every page after the server has answered its requests: they need the test's database."""
        for page in self.pages:
            page.goto("about:blank")
        for _ in range(100):
            if not self.pending_requests:
                break
            self.pages[0].wait_for_timeout(20)
        if self.pages:
            self.pages[0].wait_for_timeout(100)
        for context in self.browser.contexts:
            context.close()

    @property
    def unexpected(self) -> list[str]:
        return [each for each in self.errors if not any(part in each for part in self.expected_errors)]


@pytest.fixture
def user_pages(browser, live_server, static_files) -> Iterator[UserPages]:
    """Fail the test if a console has errors: a script error, a blocked load, a missing file."""
    opened = UserPages(browser, live_server.url)
    yield opened
    opened.close()
    assert not opened.unexpected


@pytest.fixture
def gpu_worker(db, tmp_path: Path) -> Iterator[ForkedWorker]:
    """A worker of the queue gpu, forked from this process, with the messages that this process sends."""
    with using_broker("pgmq://"), worker("pgmq://", "gpu", tmp_path / "gpu.log", is_forked=True) as started:
        yield started


@pytest.fixture
def keep() -> Callable[[Page, str], None]:
    """Keep a screenshot as `name`.png. The short run keeps none: no test reads them."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)

    def take(page: Page, name: str) -> None:
        if is_full():
            page.screenshot(path=SCREENSHOTS / f"{name}.png")

    return take


@pytest.fixture
def comparisons(project) -> Callable[..., list[int]]:
    """Make comparisons of the completions, or `count` of `size` plain ones; return their ids."""

    def make(*groups: list[str], count: int = 0, size: int = 3) -> list[int]:
        plain = [[f"Answer {letter} to question {n}." for letter in "abcdefghi"[:size]] for n in range(count)]
        rows = [{"prompt": f"Question {n}?", "completions": each} for n, each in enumerate([*groups, *plain])]
        return imports.add_prompts(project, rows, compare=True).comparison_ids

    return make
