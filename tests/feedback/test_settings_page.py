"""The settings page of a project."""

from collections import Counter

from feedback.web.forms import ProjectSettingsForm


def test_every_setting_stands_in_exactly_one_group():
    """A field that the page leaves out would be sent as empty, and saving would reset it."""
    grouped = Counter(field.name for _heading, fields in ProjectSettingsForm().groups() for field in fields)
    assert grouped == Counter(list(ProjectSettingsForm().fields))
