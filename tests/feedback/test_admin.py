"""Superusers see all rows, and cannot change rankings or skips."""

import pytest
from django.contrib import admin
from django.test import RequestFactory

from feedback.admin import ReadOnlyAdmin
from feedback.models import ApiToken, Comparison, Ranking, User
from tests.factories import rank_next

pytestmark = pytest.mark.django_db


@pytest.fixture
def request_of_superuser(db):
    request = RequestFactory().get("/admin/")
    request.user = User.objects.create_superuser("root", password="root-password")
    return request


def test_rankings_and_skips_are_read_only(request_of_superuser):
    site = admin.site._registry[Ranking]
    assert isinstance(site, ReadOnlyAdmin)
    assert site.has_view_permission(request_of_superuser)
    assert not site.has_add_permission(request_of_superuser)
    assert not site.has_change_permission(request_of_superuser)
    assert not site.has_delete_permission(request_of_superuser)


def test_a_tokens_digest_is_not_shown(request_of_superuser):
    assert "digest" not in admin.site._registry[ApiToken].get_fields(request_of_superuser)


@pytest.mark.slow
@pytest.mark.parametrize("model", [Ranking, Comparison])
def test_the_admin_lists_need_at_most_four_queries(
    request_of_superuser, ann, work, model, django_assert_max_num_queries
):
    work(12)
    while rank_next(ann):
        pass
    changes = admin.site._registry[model].get_changelist_instance(request_of_superuser)
    with django_assert_max_num_queries(4):
        rows = list(changes.get_queryset(request_of_superuser))
        assert len([str(getattr(row, name)) for row in rows for name in changes.list_display[1:]]) >= 12
