"""The form of a new project proposes the address from the name."""

from playwright.sync_api import expect


def test_the_address_follows_the_name_until_it_is_edited(user_pages, manager):
    manager.is_staff = True
    manager.save()
    page = user_pages.open("mona")
    page.goto("/projects/new/")
    name, address = page.locator("[name=name]"), page.locator("[name=slug]")
    name.fill("Réponses, support & more! ")
    expect(address).to_have_value("reponses-support-more")
    address.fill("mine")
    name.fill("Another name")
    expect(address).to_have_value("mine")
