"""Project settings: the model describes them for page and API."""

import pytest
from django.utils.text import capfirst

from feedback.api.projects import SETTINGS, ProjectRequest, ProjectSettingsRequest
from feedback.models import Project
from feedback.queue import sampling
from feedback.web.forms import ProjectForm, ProjectSettingsForm


@pytest.fixture
def second_rule(monkeypatch):
    monkeypatch.setattr(sampling, "RULES", dict(sampling.RULES))

    @sampling.rule("oldest")
    def oldest(project, comparisons):
        return [0.5] * len(comparisons)


def test_the_page_has_every_setting_once():
    """A field that the page leaves out would be sent as empty, and saving would reset it."""
    names = [field.name for _heading, fields in ProjectSettingsForm().groups() for field in fields]
    assert sorted(names) == sorted(set(SETTINGS) - {"sampling_rule"})


@pytest.mark.slow
@pytest.mark.django_db
def test_a_second_queue_rule_is_a_choice_on_the_page(client, manager, project, second_rule, plain_static_files):
    client.force_login(manager)
    page = client.get("/projects/support/settings/")
    names = [field.name for _heading, fields in page.context["form"].groups() for field in fields]
    assert sorted(names) == sorted(SETTINGS)
    assert '<option value="oldest">' in page.content.decode()
    for rule, status in (("oldest", 302), ("newest", 200)):
        answer = client.post("/projects/support/settings/", page.context["form"].initial | {"sampling_rule": rule})
        assert answer.status_code == status
        project.refresh_from_db()
        assert project.sampling_rule == "oldest"


@pytest.mark.django_db
def test_saving_the_page_keeps_the_only_rule(client, manager, project, plain_static_files):
    client.force_login(manager)
    initial = client.get("/projects/support/settings/").context["form"].initial
    assert client.post("/projects/support/settings/", initial | {"sampling_rule": "newest"}).status_code == 302
    project.refresh_from_db()
    assert project.sampling_rule == "random"


@pytest.mark.parametrize("name", ["slug", *SETTINGS])
def test_labels_and_help_texts_are_those_of_the_model(name):
    described = Project._meta.get_field(name)
    for fields in (
        ProjectForm().fields,
        ProjectSettingsForm().fields,
        ProjectRequest().fields,
        ProjectSettingsRequest().fields,
    ):
        if name in fields:
            assert capfirst(fields[name].label) == capfirst(described.verbose_name)
            assert str(fields[name].help_text or "").startswith(str(described.help_text))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wanted_rankings", 0),
        ("wanted_rankings", 101),
        ("comparisons_ahead", 21),
        ("held_out_percent", 91),
        ("gold_percent", 51),
        ("strength_points", 5),
        ("flags", [f"flag {number}" for number in range(13)]),
        ("attributes", ["tone", "Tone"]),
        ("ranking_weights", "loud"),
    ],
)
def test_limits_are_those_of_the_model_on_the_page_and_in_the_api(name, value):
    typed = ",".join(value) if isinstance(value, list) else value
    assert name in ProjectSettingsForm({name: typed}).errors
    settings = ProjectSettingsRequest(data={name: value}, partial=True)
    assert not settings.is_valid()
    assert list(settings.errors) == [name]


def test_the_page_explains_how_to_type_a_list():
    assert ProjectSettingsForm().fields["flags"].help_text.endswith("Up to 12, separated by commas.")


@pytest.mark.django_db
def test_a_list_is_shown_and_read_with_spaces_after_commas():
    form = ProjectSettingsForm(instance=Project(flags=["off topic", "unsafe"]))
    assert 'value="off topic, unsafe"' in str(form["flags"])
    typed = ProjectSettingsForm({"flags": "off topic, unsafe,rude"})
    typed.is_valid()
    assert typed.cleaned_data["flags"] == ["off topic", "unsafe", "rude"]
