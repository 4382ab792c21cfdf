"""Forms of files: uploads, imports and exports. They check single fields, as those of `forms`."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from feedback.export.formats import registry
from feedback.imports import maps
from feedback.models import Prompt
from feedback.reports import preference_export


class PromptsForm(forms.Form):
    file = forms.FileField(label=_("File"), help_text=_("JSON Lines, in UTF-8: one prompt per line."))
    compare = forms.BooleanField(
        label=_("Make a comparison of each prompt's completions"), required=False, initial=True
    )
    again = forms.BooleanField(
        label=_("Also if the same completions are in a comparison already"),
        required=False,
        help_text=_("Without this, uploading the same file again changes nothing."),
    )


class ImportFileForm(forms.Form):
    file = forms.FileField(
        label=_("File"),
        widget=forms.FileInput(attrs={"class": "drop"}),
        help_text=_(
            "Drop it here or choose it. JSON Lines, JSON, CSV, TSV or Parquet, also with gzip or zstd. Nothing is "
            "imported before you have seen the first rows."
        ),
    )


class ImportMapForm(forms.Form):
    """Choice of a shipped map, or a changed one."""

    map = forms.ChoiceField(label=_("Format"), required=False)
    columns = forms.CharField(
        label=_("Columns"),
        required=False,
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 14, "spellcheck": "false", "class": "code"}),
        help_text=_("TOML: which columns hold the prompt, the completions and the judgement."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        by_title = sorted(maps.shipped().values(), key=lambda made: made.title.casefold())
        self.fields["map"].choices = [("", "–"), *((made.name, made.title) for made in by_title)]


class ImportOptionsForm(forms.Form):
    judge = forms.CharField(
        label=_("Who judged, where a row names nobody"),
        required=False,
        max_length=200,
        help_text=_("The same name again means the same person. Empty: one person for each format."),
    )
    compare = forms.BooleanField(
        label=_("Let annotators rank the completions of rows without a judgement"), required=False, initial=True
    )
    again = forms.BooleanField(
        label=_("Also if the same completions are in a comparison already"),
        required=False,
        help_text=_("Without this, uploading the same file again changes nothing."),
    )
    stop_at_error = forms.BooleanField(
        label=_("Stop at the first row that cannot be imported"),
        required=False,
        help_text=_("The rows before it are imported. Without this, such rows are left out and reported."),
    )
    strict = forms.BooleanField(
        label=_("Import nothing if a row cannot be imported"),
        required=False,
        help_text=_("For files of at most 128 KiB."),
    )


class ExportForm(forms.Form):
    """Choice of an export, among the formats registered now."""

    format = forms.ChoiceField(label=_("Format"), widget=forms.RadioSelect)
    file = forms.ChoiceField(
        label=_("Kind of file"),
        required=False,
        choices=(("jsonl", "JSON Lines"), ("csv", "CSV"), ("parquet", "Parquet")),
        help_text=_("CSV: hh and trl-standard. Parquet: all but argilla, label-studio and rankings."),
    )
    gzip = forms.BooleanField(label=_("Compressed with gzip"), required=False)
    split = forms.ChoiceField(
        label=_("Prompts"),
        required=False,
        choices=(
            ("", _("As the format says")),
            (Prompt.Split.TRAIN, _("To train on")),
            (Prompt.Split.HELD_OUT, _("Held out")),
            (preference_export.EVERY_SPLIT, _("All")),
        ),
        help_text=_("Nothing should be trained on held-out prompts: a model's figures are measured on them."),
    )
    weights = forms.ChoiceField(
        label=_("Weight of a ranking"),
        required=False,
        choices=(
            ("", _("As the project's settings say")),
            ("equal", _("Every ranking weighs 1")),
            ("reliability", _("By its annotator's reliability")),
            ("resample", _("By repeating it, for trainers that ignore weights")),
        ),
    )
    ties = forms.ChoiceField(
        label=_("Ties"),
        required=False,
        choices=(
            ("", _("As the format says")),
            ("rows", _("As rows")),
            ("omitted", _("Left out")),
        ),
        help_text=_("In formats of pairs a tie is two rows, one in either order, with half the weight each."),
    )
    aggregated = forms.BooleanField(
        label=_("One row a comparison, by the votes of its annotators"),
        required=False,
    )
    after = forms.IntegerField(
        label=_("Only rows after cursor"),
        required=False,
        min_value=0,
        max_value=2**63 - 1,
        help_text=_("Empty: everything that counts now. With a cursor also corrections of earlier lines."),
    )
    until = forms.IntegerField(
        label=_("Only rows up to cursor"),
        required=False,
        min_value=0,
        max_value=2**63 - 1,
        help_text=_("Empty: up to now. With a cursor the file is the same again, whatever is ranked later."),
    )
    include_flagged = forms.BooleanField(
        label=_("Rankings with a flag that means not for training, too"), required=False
    )
    annotator = forms.CharField(
        label=_("Annotator"), required=False, max_length=150, help_text=_("Username or pseudonym.")
    )
    source = forms.CharField(
        label=_("Source"), required=False, max_length=200, help_text=_("Comparisons with one of its completions.")
    )
    round = forms.IntegerField(
        label=_("Round"),
        required=False,
        min_value=1,
        max_value=2**31 - 1,
        help_text=_("Comparisons with a completion that this round wrote."),
    )
    tag = forms.CharField(
        label=_("Tag"), required=False, max_length=200, help_text=_('Of the prompt: in the metadata "tags".')
    )
    imported = forms.TypedChoiceField(
        label=_("Rankings"),
        required=False,
        empty_value=None,
        coerce="yes".__eq__,
        choices=(
            ("", _("Imported ones and those made here")),
            ("yes", _("Imported only")),
            ("no", _("Made here only")),
        ),
    )
    min_agreement = forms.FloatField(
        label=_("Least agreement of a comparison's annotators"),
        required=False,
        min_value=0,
        max_value=1,
        help_text=_("0 to 1. Comparisons that fewer than two people ranked are left out."),
    )
    min_reliability = forms.FloatField(
        label=_("Least reliability of an annotator"), required=False, min_value=0, max_value=1, help_text=_("0 to 1.")
    )

    def __init__(self, data: Any = None) -> None:
        super().__init__(data, initial={"format": preference_export.DEFAULT_FORMAT})
        self.fields["format"].choices = [(name, name) for name in registry.names()]

    @property
    def filters(self) -> list[forms.BoundField]:
        """Return the fields that choose rankings, which the page folds away."""
        return [self[name] for name in ("split", *preference_export.FILTERS, "after", "until", "include_flagged")]

    @property
    def has_filters(self) -> bool:
        """Return whether one of them is set."""
        return any(field.value() or field.errors for field in self.filters)
