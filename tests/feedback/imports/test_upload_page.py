"""Uploads on the page for prompts: a file that is sent again is compared again only where its box says so."""

import json

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from feedback.models import Comparison, Prompt

PAGE = "/projects/support/prompts/"
ROWS = [{"prompt": f"Question {n}?", "completions": ["a", "b"]} for n in range(3)]


@pytest.fixture
def upload(client, manager):
    client.force_login(manager)

    def send(**boxes: str) -> str:
        file = SimpleUploadedFile("prompts.jsonl", "\n".join(map(json.dumps, ROWS)).encode())
        return client.post(PAGE, {"file": file, "compare": "on", **boxes}, follow=True).content.decode()

    return send


def test_a_file_uploaded_again_makes_no_comparison_again(upload):
    assert "3 new prompts, 0 known already, 3 comparisons made." in upload()
    assert "0 new prompts, 3 known already" in upload()
    assert (Prompt.objects.count(), Comparison.objects.count()) == (3, 3)


def test_a_file_uploaded_again_is_compared_again_if_the_box_is_ticked(upload):
    upload()
    assert "3 comparisons made" in upload(again="on")
    assert (Prompt.objects.count(), Comparison.objects.count()) == (3, 6)


def test_without_its_box_no_comparison_is_made(upload):
    upload(compare="")
    assert (Prompt.objects.count(), Comparison.objects.count()) == (3, 0)
