"""Form of a new round: every setting that its recipe uses, with the declared label, sentence, default and limits."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from feedback.errors import AccordError
from training.learner.reward_terms import TERMS
from training.learner.runtime.jobdir import BadInput
from training.rounds import declared
from training.rounds.declared import Declared
from training.rounds.recipes import recipe_of
from training.rounds.recipes.description import FormField, Sections, Text
from training.rounds.sources import EXAMPLE
from training.web import dialogue_fields

KEPT_TERMS = "kept"  # reward terms that the choice of a metric does not offer
LIMIT_SENTENCES = {
    "low": gettext_noop("Must be at least %(limit)s."),
    "above": gettext_noop("Must be above %(limit)s."),
    "high": gettext_noop("Must be at most %(limit)s."),
    "below": gettext_noop("Must be below %(limit)s."),
}
KEEPS = {
    "low": lambda value, limit: value >= limit,
    "above": lambda value, limit: value > limit,
    "high": lambda value, limit: value <= limit,
    "below": lambda value, limit: value < limit,
}


class JsonField(forms.CharField):
    """A text area with a list of objects in JSON (reward terms, text metrics), or with one object."""

    def __init__(self, *, is_object: bool = False, **options: Any) -> None:
        self.is_object = is_object
        super().__init__(widget=forms.Textarea(attrs={"rows": 3, "class": "code", "spellcheck": "false"}), **options)

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        if not text:
            return None
        try:
            read = json.loads(text)
        except ValueError as error:
            raise ValidationError(_("This is not JSON: %(error)s.") % {"error": error}) from error
        if self.is_object:
            if not isinstance(read, dict):
                raise ValidationError(_("Write an object, such as %(example)s.") % {"example": EXAMPLE})
            return read
        if not isinstance(read, list) or not all(isinstance(entry, dict) for entry in read):
            raise ValidationError(_('Write a list of objects, such as [{"name": "length"}].'))
        return read

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(json.loads(initial or "null") != json.loads(data or "null"))
        except ValueError:
            return True


@dataclass(frozen=True)
class Row:
    """One field of the form as the page shows it."""

    field: forms.BoundField
    name: str  # of the setting in the API, with its section
    default: str  # for people
    default_value: str  # as the field has it; "on" or "" for a box
    is_changed: bool  # it differs from the default


@dataclass(frozen=True)
class FormGroup:
    """The fields of a section."""

    section: str
    label: Text
    rows: list[Row]

    @property
    def changed(self) -> int:
        return sum(row.is_changed for row in self.rows)


class RoundForm(forms.Form):
    """Form of a new round's settings. `overrides` returns the recipe and the changed ones.

    `again` is the number of an earlier round whose settings the new one has, except for the changes. An empty field has
    its default.
    """

    again = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def __init__(
        self,
        data: Any,
        settings: Sections,
        only_samples: bool = False,
        again: int | None = None,
        users: Sequence[str] = (),
        checkpoints: Sequence[str] = (),
        defaults: Sections | None = None,
    ) -> None:
        """Build the fields. `settings` are complete sections, as `round_settings.resolve` returns them.

        only_samples: the round only writes completions to rank, whatever its recipe. users: the choices of a simulated
        user besides lines (`dialogue_fields`). checkpoints: names to choose from, the served one first. defaults:
        the settings of a round without changes, if `settings` are others.
        """
        super().__init__(data, initial={"again": again}, auto_id="id_%s")
        self.only_samples = only_samples
        self.settings, self.defaults = settings, defaults or settings
        self.recipe = recipe_of(settings)
        self.groups = declared.groups_of(self.recipe, settings, only_samples)
        # The reward terms that the policy learns from. Without a section of their own they only score the samples.
        self.terms = self.recipe.reward_terms(settings) if self.recipe.rewards_section else []
        self._default_fields: dict[str, forms.Field] = {}
        self._users, self._checkpoints = users, checkpoints
        for one in declared.all_of(self.groups):
            self.fields |= self._fields_of(one, self._value(settings, one))
            self._default_fields |= self._fields_of(one, self._value(self.defaults, one))

    def with_data(self, data: QueryDict) -> "RoundForm":
        """Return the same form with data that a browser may have sent."""
        again = self.initial["again"]
        options = (self.only_samples, again, self._users, self._checkpoints, self.defaults)
        return RoundForm(data, self.settings, *options)

    def _value(self, settings: Sections, one: Declared) -> Any:
        section = one.section
        if section == declared.COMMON:
            section = next(program for program in self.recipe.programs if one.name in settings[program])
        return settings.get(section, self.settings[section])[one.name]

    def _fields_of(self, one: Declared, value: Any) -> dict[str, forms.Field]:
        """Return the fields of a setting by their keys: one, except for an environment."""
        if one.name == "environment":
            made = dialogue_fields.fields_of(value, self._users)
            return {f"{one.section}-{key}": field for key, field in made.items()}
        if one.name == "checkpoints":
            return {one.key: _checkpoints_field(one, value, self._checkpoints)}
        if one.name == "rewards" and FormField(one.section, one.name) in self.recipe.fields:
            return {one.key: _metric_field(one, value)}
        return {one.key: field_of(one, value)}

    def clean(self) -> dict[str, Any]:
        """Refuse settings of a simulated user that the round would not use."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        suffix = f"-{dialogue_fields.USER}"
        for section in [key.removesuffix(suffix) for key in self.fields if key.endswith(suffix)]:
            unused = dialogue_fields.unused_of(cleaned, section, self.changed_data)
            for name, sentence in unused.items():
                self.add_error(f"{section}-{name}", sentence)
        return cleaned

    def add_refusal(self, refusal: AccordError) -> None:
        """Show why the round cannot start: beside the field of the setting that the sentence names, if it names one."""
        words = re.findall(r"\w+", str(refusal.__cause__)) if isinstance(refusal.__cause__, BadInput) else []
        named = [key for word in words for key in self.fields if key.partition("-")[2] == word]
        key = next((key for key in named if key in self.changed_data), next(iter(named), None))
        self.add_error(key, refusal.message)

    @property
    def overrides(self) -> Sections:
        """Return the recipe and the changed settings by section. None: the default, which no other value is."""
        changed: Sections = {"round": {"recipe": self.recipe.name}}
        for one in declared.all_of(self.groups):
            before = self._value(self.settings, one)
            value = self._cleaned(one)
            # Named checkpoints always, because the form proposes some where the settings name none.
            if value != before or one.name == "checkpoints":
                for section in self.recipe.programs if one.section == declared.COMMON else (one.section,):
                    changed.setdefault(section, {})[one.name] = value
        return changed

    def _cleaned(self, one: Declared) -> Any:
        """Return the value of a setting that the fields describe; an empty field has the default."""
        default = self._value(self.defaults, one)
        if one.name == "environment":
            changed = [key for key in self.changed_data if key.startswith(one.key)]
            stored = self._value(self.settings, one)
            return dialogue_fields.environment_of(self.cleaned_data, one.section, stored) if changed else stored
        value = self.cleaned_data[one.key]
        if isinstance(self.fields[one.key], MetricField):
            return self._value(self.settings, one) if value in ("", KEPT_TERMS) else [{"name": value}]
        return default if value is None or value == "" else value

    def simple_rows(self) -> list[Row]:
        """Return the fields of the simple view: those of the recipe, and how many prompts are answered."""
        return [row for key in self._simple_keys() for row in self._rows(key)]

    def other_groups(self) -> list[FormGroup]:
        """Return the fields of the full view that the simple one does not have."""
        simple = set(self._simple_keys())
        groups = [
            FormGroup(
                group.section,
                group.label,
                [row for one in group.settings if one.key not in simple for row in self._rows(one.key)],
            )
            for group in self.groups
        ]
        return [group for group in groups if group.rows]

    def _simple_keys(self) -> list[str]:
        of_recipe = () if self.only_samples else self.recipe.fields
        wanted = [f"{field.section}-{field.name}" for field in (*of_recipe, FormField("round", "prompts"))]
        return [key for key in wanted if key in {one.key for one in declared.all_of(self.groups)}]

    def _rows(self, key: str) -> Iterator[Row]:
        for name in [name for name in self.fields if name == key or name.startswith(f"{key}-")]:
            default = self._default_fields[name]
            bound = self[name]
            current = bound.data if self.is_bound else bound.initial
            yield Row(
                field=bound,
                name=key.replace("-", ".", 1),
                default=_as_text(default),
                default_value=_as_value(default),
                is_changed=default.has_changed(default.initial, current),
            )


def as_data(form: RoundForm) -> QueryDict:
    """Return what a browser sends for an unchanged form."""
    data = QueryDict(mutable=True)
    for name, field in form.fields.items():
        value = form.initial.get(name, field.initial)
        if isinstance(value, list):
            data.setlist(name, value)
        elif isinstance(field, forms.BooleanField):
            data |= {name: "on"} if value else {}
        else:
            data[name] = "" if value is None else value
    return data


def reset(form: RoundForm, name: str) -> None:
    """Give one field of a form with data its default."""
    data = form.data.copy()
    if name in form.fields:
        default = form._default_fields[name]
        if isinstance(default, forms.BooleanField):
            data.pop(name, None)
            data |= {name: "on"} if default.initial else {}
        elif isinstance(default.initial, list):
            data.setlist(name, default.initial)
        else:
            data[name] = _as_value(default)
    form.data = data


def field_of(one: Declared, value: Any) -> forms.Field:
    """Return the field of one setting; its type decides the kind."""
    options: dict[str, Any] = {"label": one.label, "help_text": one.help, "initial": value, "required": False}
    if one.choices:
        return forms.ChoiceField(**options, choices=[(choice, choice) for choice in one.choices])
    if one.kind is bool:
        return forms.BooleanField(**options)
    if one.kind in (list, dict):
        text = json.dumps(value, ensure_ascii=False)
        return JsonField(is_object=one.kind is dict, **{**options, "initial": text})
    if one.kind is str:
        return forms.CharField(**options)
    kind = forms.IntegerField if one.kind is int else forms.FloatField
    number = forms.NumberInput(attrs={} if one.kind is int else {"step": "any"})
    return kind(**options, widget=number, validators=[_limit(name, limit) for name, limit in one.limits.items()])


class MetricField(forms.ChoiceField):
    """Choice of the text metric that is the only reward term."""


def _metric_field(one: Declared, terms: list[dict[str, Any]]) -> MetricField:
    """Return the choice of a text metric. Other terms can be kept, not chosen."""
    metrics = {name: name for name, term in TERMS.items() if term.needs_references}
    is_metric = len(terms) == 1 and terms[0].keys() == {"name"} and terms[0]["name"] in metrics
    kept = {} if is_metric else {KEPT_TERMS: " + ".join(str(term.get("name")) for term in terms)}
    return MetricField(
        label=_("Metric"),
        help_text=_("It compares an answer with the references of its prompt."),
        initial=terms[0]["name"] if is_metric else KEPT_TERMS,
        choices=list((kept | metrics).items()),
        required=False,
    )


def _checkpoints_field(one: Declared, names: Sequence[str], choices: Sequence[str]) -> forms.MultipleChoiceField:
    """Return the choice of named checkpoints: at first the named ones, else the served one and the newest other."""
    return forms.MultipleChoiceField(
        label=one.label,
        help_text=one.help,
        initial=list(names or choices[:2]),
        choices=[(name, name) for name in dict.fromkeys([*choices, *names])],
        widget=forms.CheckboxSelectMultiple,
    )


def _limit(name: str, limit: Any) -> Any:
    """Return the validator of one declared limit."""

    def check(value: Any) -> None:
        if not KEEPS[name](value, limit):
            raise ValidationError(_(LIMIT_SENTENCES[name]) % {"limit": limit})

    return check


def _as_text(field: forms.Field) -> str:
    """Return a field's default for people; "" if nothing can be said in a line."""
    value = field.initial
    if isinstance(field, forms.BooleanField):
        return _("on") if value else _("off")
    if isinstance(field, forms.ChoiceField) and not isinstance(value, list):
        return str(dict(field.choices).get(value, value))
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


def _as_value(field: forms.Field) -> str:
    value = field.initial
    if isinstance(field, forms.BooleanField):
        return "on" if value else ""
    return " ".join(value) if isinstance(value, list) else "" if value is None else str(value)
