"""The pages of endpoints in a browser: models are listed and a request is sent without leaving the page."""

import ipaddress

import pytest
from playwright.sync_api import expect
from test_accessibility import check

from tests.training.stand_in import MODEL, stand_in
from training.endpoints import records
from training.models import Endpoint


@pytest.mark.full
@pytest.mark.parametrize("look", [{}, {"dark": True, "phone": True, "language": "zh-hans"}], ids=["desktop", "phone"])
def test_an_endpoint_is_added_with_a_listed_model_and_tried(project, user_pages, manager, settings, look):
    settings.ENDPOINT_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    page = user_pages.open("mona", **look)
    page.goto(f"/projects/{project.slug}/endpoints/")
    check(page)
    with stand_in() as server:
        page.locator("[name=name]").fill("vllm")
        page.locator("[name=url]").fill(server.url)
        page.locator("[name=key]").fill("sk-hidden-0123456789")
        page.locator("[hx-post$='models/']").click()
        expect(page.locator("#models option")).to_have_count(2)
        page.locator("[name=model]").fill(MODEL)
        page.locator("[name=prompt_price]").fill("3")
        page.locator("[name=completion_price]").fill("15")
        check(page)
        page.locator("main .button.primary").last.click()
        page.locator("#endpoint-call ~ form button").click()
        expect(page.locator("#endpoint-call dl")).to_contain_text("Say hello.!")
        check(page)
        assert Endpoint.objects.get().requests == 1
        assert records.key_of(Endpoint.objects.get()) == server.keys[-1].removeprefix("Bearer ")
