"""The count of changes to prompts, by which an export knows that its lines are the same."""

import pytest

from feedback.models import Project, Prompt, PromptChanges
from feedback.reports import preference_export
from tests.factories import add_work

pytestmark = pytest.mark.django_db


def changes(project):
    return PromptChanges.objects.filter(project=project).values_list("count", flat=True).first()


def test_changed_and_deleted_prompts_are_counted_by_statement_and_new_ones_are_not(project, stranger):
    elsewhere = stranger.memberships.get().project
    add_work(project, 3)
    assert changes(project) is None
    prompts = Prompt.objects.filter(project=project)
    prompts.update(metadata={"topic": "parcels"})
    assert changes(project) == 1
    prompts.update(metadata={"topic": "parcels"})  # as it was
    assert changes(project) == 1
    prompts.filter(pk=prompts.order_by("pk").first().pk).update(external_id="a")
    assert changes(project) == 2
    lonely = Prompt.objects.create(project=project, messages=[], digest="0", split="train")
    lonely.delete()
    assert changes(project) == 3
    assert changes(elsewhere) is None


def test_the_entity_tag_of_an_export_reads_no_prompts(project, django_assert_max_num_queries):
    add_work(project, 1)
    with django_assert_max_num_queries(8) as queries:
        preference_export.export(project, "trl")
    assert not any('"feedback_prompt"' in query["sql"] for query in queries)


def test_a_project_with_changed_prompts_can_be_deleted(db):
    project = Project.objects.create(slug="gone", name="Gone")
    add_work(project, 1)
    project.comparisons.all().delete()
    Prompt.objects.filter(project=project).update(external_id="x")
    project.delete()
    assert not Prompt.objects.exists()
