"""Page object of the console."""

import re

from playwright.sync_api import Page, expect


class ConsolePage:
    """A project's loop: start a round, watch it, compare its samples, promote."""

    def __init__(self, page: Page, slug: str = "support") -> None:
        self.page, self.slug = page, slug
        self.open()

    def open(self) -> None:
        self.page.goto(f"/projects/{self.slug}/console/")

    def start_round(self) -> int:
        """Start a round with default settings, open its page and return its number."""
        self.page.get_by_role("link", name="Start a round").click()
        self.page.get_by_role("button", name="Start", exact=True).click()
        self.page.get_by_role("heading", name="Round").wait_for()
        return int(self.page.url.rstrip("/").split("/")[-1])

    def expect_status(self, status: str, timeout: float = 10_000) -> None:
        """Wait until the round has this status. A round that ends otherwise fails at once, with what its page says."""
        heading = self.page.get_by_role("heading", level=1)
        ends = "|".join({status, "Finished", "Failed", "Cancelled"})
        expect(heading).to_contain_text(re.compile(ends), timeout=timeout)
        assert status in heading.inner_text(), self.page.locator("main").inner_text()

    def expect_curve(self, job: str, metric: str, timeout: float = 10_000) -> None:
        """Check that the curve is drawn and shows its last value."""
        curve = self.page.locator(f".curve[data-job={job}][data-metric^={metric}]")
        expect(curve.locator("canvas")).to_be_visible(timeout=timeout)
        expect(curve.locator("output")).not_to_be_empty()

    def reading(self, job: str, metric: str) -> str:
        return self.page.locator(f".curve[data-job={job}][data-metric^={metric}] output").inner_text()

    def open_samples(self) -> None:
        self.page.get_by_role("link", name="Samples, and promote").click()

    def promote(self) -> None:
        self.page.once("dialog", lambda dialog: dialog.accept())
        self.page.get_by_role("button", name="Promote").click()
