"""The page shows any untrusted completion as text, and runs nothing in it."""

import pytest
from rank_page import RankPage

SCRIPTS = """<script>document.title = "owned"</script>
<img src=x onerror="document.title='owned'">
<svg onload="document.title='owned'"></svg>
<style>body { display: none }</style>
<iframe src="javascript:parent.document.title='owned'"></iframe>
<form action="/sign-out/"><button>Submit</button></form>
<a href="javascript:document.title='owned'">press me</a>
<details open ontoggle="document.title='owned'">x</details>"""
LINKS = """[press me](javascript:document.title='owned') [or me](data:text/html,owned)
[a plain one](https://example.org/?q="onmouseover="document.title='owned')
![tracked](https://example.org/pixel.png)
<https://example.org/>"""
TEMPLATES = "{{ 7|add:7 }} {% csrf_token %} ${7*7} </div></article></main><h1>out</h1> &lt;script&gt;"
CONTROLS = "pay \u202egnihton\u202c to\u200b day\u0000\u001b[31m red \ud800 A\u0301\u0302\u0303" + "\u0336" * 200
NESTED = "[" * 3000 + "> " * 500 + "*a_" * 2000 + "`" * 2000
RIGHT_TO_LEFT = "مرحبا، سيصل طردك يوم الخميس. 👩‍👩‍👧 नमस्ते 你好"


@pytest.fixture
def show_texts(comparisons, user_pages, annotator):
    def show(*texts: str):
        comparisons(list(texts))
        return RankPage(user_pages.open("ann")).page

    return show


def test_markup_is_shown_as_text_and_runs_no_script(show_texts, keep):
    page = show_texts(SCRIPTS, LINKS, TEMPLATES)
    keep(page, "hostile-markup")
    assert "owned" not in page.title()
    text = " ".join(page.locator(".completion").all_inner_texts())
    for piece in ("<script>", "onerror=", "<style>", "<iframe", "{{ 7|add:7 }}", "{% csrf_token %}", "</article>"):
        assert piece in text, f"{piece} is hidden from the annotator"
    unwanted = ".prose :is(script, style, img, iframe, svg, form, button, input, object, h1, [onerror], [onload])"
    assert page.locator(unwanted).count() == 0
    assert page.locator("main").is_visible()


def test_links_lead_to_https_pages_in_a_new_tab_only(show_texts):
    page = show_texts(LINKS, "plain")
    links = page.locator(".prose a")
    assert {link.get_attribute("href").split(":")[0] for link in links.all()} == {"https"}
    for link in links.all():
        assert link.get_attribute("target") == "_blank"
        assert {"noopener", "noreferrer", "nofollow"} <= set(link.get_attribute("rel").split())


def test_invisible_controls_are_made_visible(show_texts, keep):
    page = show_texts(CONTROLS.replace("\ud800", "").replace("\u0000", ""), "plain")
    keep(page, "hostile-controls")
    controls = page.locator(".control").all_inner_texts()
    assert {"U+202E", "U+202C", "U+200B", "U+001B"} <= set(controls)


@pytest.mark.full
def test_a_megabyte_and_deep_nesting_are_shown_folded(show_texts, keep):
    page = show_texts("word " * 200_000, NESTED)
    keep(page, "hostile-long")
    for card in page.locator(".completion").all():
        assert card.bounding_box()["height"] < 700
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"


def test_other_scripts_read_in_their_direction(show_texts, keep):
    page = show_texts(RIGHT_TO_LEFT, "plain")
    keep(page, "other-scripts")
    right = page.locator(".completion .prose", has_text="مرحبا")
    assert right.evaluate("(element) => getComputedStyle(element).direction") == "rtl"


def test_the_policy_lets_no_other_script_run(user_pages, annotator, comparisons):
    comparisons(count=1)
    page = RankPage(user_pages.open("ann")).page
    user_pages.expected_errors.append("Content Security Policy")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x:y onerror=\"document.title=1\">')")
    page.wait_for_timeout(300)
    assert page.title().endswith("Accord")
