"""Page object of the ranking page."""

from playwright.sync_api import Locator, Page, expect

from feedback.models import Membership
from feedback.queue import blinding


class RankPage:
    """Elements and actions of `/projects/<slug>/rank/`."""

    def __init__(self, page: Page, slug: str = "support") -> None:
        self.page, self.slug = page, slug
        page.goto(f"/projects/{slug}/rank/")
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        self.page.locator("#rank[data-ready]").wait_for()

    @property
    def form(self) -> Locator:
        return self.page.locator("form.comparison")

    @property
    def number(self) -> int:
        """The blinded number of the comparison on screen; for reviewers it is the id. See `blinding`."""
        return int(self.form.get_attribute("data-comparison"))

    @property
    def comparison(self) -> int:
        """The id of the comparison on screen, which the page does not contain."""
        return blinding.comparison_id(self._member, self.number)

    def number_of(self, comparison: int) -> int:
        """Return the blinded number of the comparison with this id."""
        return blinding.comparison_number(self._member, comparison)

    @property
    def username(self) -> str:
        return self.page.locator("header .menu > summary").inner_text().strip()

    @property
    def _member(self) -> Membership:
        memberships = Membership.objects.select_related("project")
        return memberships.get(user__username=self.username, project__slug=self.slug)

    @property
    def texts(self) -> list[str]:
        return self.page.locator(".completion > .prose").all_inner_texts()

    @property
    def ranks(self) -> list[int]:
        """Ranks in the order of display; 0 if there is none yet."""
        cards = self.page.locator(".completion").all()
        return [int(self._value(card)) for card in cards]

    def _value(self, card: Locator) -> str:
        chosen = card.locator(".chips input:checked")
        return chosen.get_attribute("value") if chosen.count() else "0"

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def rank_by_keys(self, ranks: list[int]) -> None:
        """Press the digits; the page goes to the next completion itself."""
        self.press(*map(str, ranks))

    def submit(self) -> None:
        """Press Enter, and wait for the next comparison or for "nothing to rank"."""
        before = self.form.element_handle()
        self.press("Enter")
        before.wait_for_element_state("hidden")
        self.page.locator("form.comparison, [data-nothing]").wait_for()

    def drag(self, letter: str, rank: int, part: tuple[float, float] = (0.5, 0.5)) -> None:
        """Drag the letter from the dock to that part of the box."""
        self._drag(self.page.locator(f".dock .letter[data-letter={letter}]"), rank, part)

    def drag_from_corner(self, letter: str, rank: int, part: tuple[float, float] = (0.5, 0.5)) -> None:
        self._drag(self.page.locator(f".completion .letter[data-letter={letter}]"), rank, part)

    def box(self, rank: int) -> Locator:
        """Return the box of a rank; 0 is the box of letters without one."""
        return self.page.locator(f".tier[data-rank='{rank}']")

    def _drag(self, token: Locator, rank: int, part: tuple[float, float]) -> None:
        (x, y), (to_x, to_y) = _point(token), _point(self.box(rank), part)
        mouse = self.page.mouse
        mouse.move(x, y)
        mouse.down()
        mouse.move((x + to_x) / 2, (y + to_y) / 2, steps=4)
        mouse.move(to_x, to_y, steps=4)
        mouse.up()
        expect(self.box(rank).locator(".letter").first).to_be_visible()

    def expect_sent(self) -> None:
        """Wait until the server has answered every submit."""
        expect(self.page.locator("#rank")).to_have_attribute("data-unsent", "0")


def _point(locator: Locator, part: tuple[float, float] = (0.5, 0.5)) -> tuple[float, float]:
    """Return the window position of a part of the element's width and height."""
    box = locator.bounding_box()
    return box["x"] + box["width"] * part[0], box["y"] + box["height"] * part[1]
