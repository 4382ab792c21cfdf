"""axe-core finds no violation in any state of any page, light and dark."""

import json

import pytest
from django.conf import settings
from playwright.sync_api import Page
from rank_page import RankPage

from feedback import imports
from tests.factories import FAST, fake_model, membership
from tests.training.rated_rounds import make_rounds
from tests.training.trial_worlds import import_second, open_trial, vote
from training import checkpoints

AXE = settings.BASE_DIR / "static" / "node_modules" / "axe-core" / "axe.min.js"
# Only violations are used: axe then looks at one element of what passes a rule, and all of what may break it.
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations"],
}


def check(page: Page) -> None:
    page.wait_for_timeout(200)  # colours that are still changing are no colours
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text())
    found = page.evaluate("async (rules) => (await axe.run(document, rules)).violations", RULES)
    violations = [
        {"rule": each["id"], "help": each["help"], "where": [node["html"][:200] for node in each["nodes"][:3]]}
        for each in found
    ]
    assert not violations, json.dumps(violations, indent=1)


@pytest.mark.full
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_ranking_page_in_every_state(comparisons, user_pages, annotator, dark):
    comparisons(
        ["# Head\n\n- a\n- b\n\n```python\nprint(1) # x\n```", "|a|b|\n|-|-|\n|1|2|", "word " * 900, ""], count=1
    )
    ranking = RankPage(user_pages.open("ann", dark=dark))
    check(ranking.page)
    for key, after in (("?", "Escape"), ("g", "Escape"), ("s", "Escape"), ("p", "Escape"), ("d", "d"), ("e", "e")):
        ranking.press(key)
        check(ranking.page)
        ranking.press(after)
    ranking.press("Enter")  # says what is missing
    check(ranking.page)
    for _ in range(2):
        ranking.rank_by_keys([1] * ranking.page.locator(".completion").count())
        check(ranking.page)
        ranking.submit()
    check(ranking.page)  # nothing to rank
    ranking.press("u")
    ranking.form.wait_for()
    check(ranking.page)


@pytest.mark.full
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_other_pages_have_no_violation(project, comparisons, user_pages, manager, annotator, dark):
    comparisons(["One.", "Two."])
    comparison = project.comparisons.get()
    page = user_pages.open("mona", dark=dark)
    at = f"/projects/{project.slug}"
    for path in (
        # First: the ranking page holds the comparisons for this manager, who then may not see their rankings.
        f"{at}/data/completions/?source=nobody",
        *(f"{at}/data/{name}/" for name in ("completions", "comparisons", "rankings", "skips")),
        f"{at}/data/prompts/{comparison.prompt_id}/",
        f"{at}/data/comparisons/{comparison.pk}/",
        f"{at}/data/completions/{comparison.completions.all()[0].pk}/",
        "/",
        "/account/",
        "/account/password/",
        "/account/erase/",
        "/account/second-factor/",
        "/account/connections/",
        f"{at}/rank/",
        f"{at}/guidelines/",
        f"{at}/prompts/",
        f"{at}/imports/",
        f"{at}/export/",
        f"{at}/export/?format=trl&split=all",
        f"{at}/people/",
        f"{at}/people/routing/",
        f"{at}/settings/",
        f"{at}/audit/",
        f"{at}/webhooks/",
        f"{at}/console/",
        f"{at}/machines/",
        f"{at}/ratings/",
        f"{at}/guards/",
        f"{at}/endpoints/",
        f"{at}/reward-model/",
        f"{at}/review/surprising/",
        f"{at}/trials/",
        f"{at}/checkpoints/",
        f"{at}/rounds/new/",
    ):
        page.goto(path)
        check(page)


@pytest.mark.full  # each of the pages is seconds of work for axe; the list of trials is in the test above
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_trial_with_votes_and_its_forms_have_no_violation(project, user_pages, manager, annotator, tmp_path, dark):
    folder = str(fake_model(tmp_path / "base"))
    base = checkpoints.import_checkpoint(project, folder, "base", serve=True, verdict=FAST)
    open_trial(project, base, import_second(project, tmp_path), prompts=4)
    voter = membership(annotator, project)
    vote(voter, "second", count=2)
    vote(voter)
    page, at = user_pages.open("mona", dark=dark), f"/projects/{project.slug}"
    for path in (f"{at}/trials/1/", f"{at}/console/", f"{at}/rounds/new/?recipe=trial"):
        page.goto(path)
        check(page)
    page.goto(f"{at}/trials/")
    page.get_by_role("button", name="Change the gate").click()
    check(page)


@pytest.mark.full
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_pages_of_checkpoints_have_no_violation(project, user_pages, manager, tmp_path, dark):
    folder = str(fake_model(tmp_path / "base"))
    base = checkpoints.import_checkpoint(project, folder, "base", serve=True, verdict=FAST)
    made = make_rounds(project, base)
    checkpoints.retire(made[2], manager)
    prompts = imports.add_prompts(project, [{"prompt": "Where is my parcel?"}]).prompt_ids
    for checkpoint in made[:2]:
        imports.add_completions(project, checkpoint.source, [{"prompt_id": prompts[0], "text": f"By {checkpoint}."}])
    page, at = user_pages.open("mona", dark=dark), f"/projects/{project.slug}/checkpoints"
    for path in (
        "/",
        f"/{made[1].pk}/",
        f"/{made[2].pk}/",
        "/compare/",
        f"/compare/?one={base.pk}&other={made[1].pk}",
        f"/compare/?one={base.pk}&other={made[2].pk}",
    ):
        page.goto(f"{at}{path}")
        check(page)


@pytest.mark.full
def test_signing_in_errors_and_high_contrast(project, user_pages, annotator):
    user_pages.expected_errors.append("404")
    page = user_pages.open()
    page.goto("/sign-in/password/")
    check(page)
    page.goto("/sign-in/")
    check(page)
    page.locator("[name=username]").fill("ann")
    page.locator("[name=password]").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    check(page)
    user_pages.sign_in(page, "ann")
    page.locator(".menu > summary").click()
    page.get_by_role("button", name="High contrast").click()
    check(page)
    page.goto("/projects/nowhere/rank/")
    check(page)
