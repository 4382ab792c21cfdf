"""The form of a new round: changed values, defaults, limits and refusals."""

import pytest
from django.http import QueryDict
from django.utils import translation

from feedback.errors import Invalid
from training.rounds.recipes import RECIPES
from training.rounds.settings import resolve
from training.web.round_form import RoundForm, as_data, reset


def settings_of(recipe="ppo", **sections):
    return resolve({"round": {"recipe": recipe}}, sections, seed=0)


def form_with(settings, defaults=None, **typed):
    """The form as a browser sends it back after these fields were typed; "__" stands for "-"."""
    form = RoundForm(None, settings, defaults=defaults)
    data = as_data(form)
    for name, value in typed.items():
        data[name.replace("__", "-")] = value
    return form.with_data(data)


def row_of(form, name):
    rows = [*form.simple_rows(), *(row for group in form.other_groups() for row in group.rows)]
    return next(row for row in rows if row.field.html_name == name)


@pytest.mark.parametrize(
    "recipe",
    [
        name if name in ("ppo", "metric") else pytest.param(name, marks=pytest.mark.full)
        for name in RECIPES
        if name != "trial"
    ],
)
def test_an_unchanged_form_changes_nothing(recipe):
    form = form_with(settings_of(recipe))
    assert form.is_valid(), form.errors
    assert form.overrides == {"round": {"recipe": recipe}}
    assert not any(row.is_changed for group in form.other_groups() for row in group.rows)


def test_an_empty_or_missing_field_has_its_default():
    typed = form_with(settings_of(), defaults=settings_of(), ppo__steps="", ppo__kl_coefficient="0.1")
    del typed.data["reward-epochs"]
    assert typed.is_valid() and typed.overrides == {"round": {"recipe": "ppo"}, "ppo": {"kl_coefficient": 0.1}}
    of_round = settings_of(ppo={"steps": 7})
    emptied = form_with(of_round, defaults=settings_of(), ppo__steps="")
    assert emptied.is_valid() and emptied.overrides["ppo"] == {"steps": 100}


def test_a_value_that_differs_from_the_default_is_marked_and_can_be_reset():
    form = form_with(settings_of(), ppo__steps="7", ppo__whiten_rewards="on")
    row, box = row_of(form, "ppo-steps"), row_of(form, "ppo-whiten_rewards")
    assert (row.is_changed, row.default, row.name) == (True, "100", "ppo.steps")
    assert (box.is_changed, box.default) == (True, "off")
    assert not row_of(form, "ppo-epochs").is_changed
    for name in ("ppo-steps", "ppo-whiten_rewards"):
        reset(form, name)
    again = form.with_data(form.data)
    assert not row_of(again, "ppo-steps").is_changed and not row_of(again, "ppo-whiten_rewards").is_changed
    repeat = RoundForm(None, settings_of(ppo={"steps": 7}), defaults=settings_of())
    assert row_of(repeat, "ppo-steps").is_changed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("ppo__steps", "0", "Must be at least 1."),
        ("ppo__clip_ratio", "0", "Must be above 0."),
        ("round__comparison_size", "10", "Must be at most 9."),
        ("reward__tie_share", "1", "Must be below 1."),
        ("ppo__rewards", "[", "This is not JSON: Expecting value: line 1 column 2 (char 1)."),
        ("ppo__rewards", '["a"]', 'Write a list of objects, such as [{"name": "length"}].'),
    ],
)
def test_a_wrong_value_is_refused_beside_its_field_and_kept(name, value, sentence):
    form = form_with(settings_of(), **{name: value})
    key = name.replace("__", "-")
    assert not form.is_valid() and form.errors == {key: [sentence]}
    assert form[key].value() == value


@pytest.mark.slow
def test_a_contradiction_is_shown_beside_the_changed_setting_that_the_sentence_names():
    form = form_with(settings_of(), ppo__minibatches="3")
    assert form.is_valid()
    with pytest.raises(Invalid) as refusal:
        resolve(form.overrides, seed=0)
    form.add_refusal(refusal.value)
    assert list(form.errors) == ["ppo-minibatches"]
    other = form_with(settings_of())
    assert other.is_valid()
    other.add_refusal(Invalid("There are no rankings to learn from yet."))
    assert list(other.errors) == ["__all__"]


def test_the_form_speaks_the_readers_language():
    with translation.override("zh-hans"):
        field = RoundForm(None, settings_of())["ppo-steps"]
        assert (str(field.label), str(field.help_text)) == ("策略步数", "批次数，每个批次由最新策略采样。")


def test_the_simple_view_has_the_recipes_size_and_the_prompts():
    rows = [row.field.html_name for row in RoundForm(None, settings_of()).simple_rows()]
    assert rows == ["ppo-steps", "round-prompts"]


def test_a_query_with_the_changed_fields_only_is_read():
    data = QueryDict("recipe=ppo&ppo-steps=7")
    form = RoundForm(data, settings_of())
    assert form.is_valid() and form.overrides["ppo"] == {"steps": 7}
