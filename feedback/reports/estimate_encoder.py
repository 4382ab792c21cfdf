"""Estimates and check results as JSON, for the columns of stored snapshots."""

from typing import Any

from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from feedback.quality.agreement import AgreementMeasures, Estimate
from feedback.quality.checks import CheckResult


class EstimateEncoder:
    """Encoder and decoder of estimates and check results, as lists for JSON.

    Sentences are stored once, untranslated, and referred to by index, so that each reader gets their own language.
    """

    def __init__(self, sentences: list[str]) -> None:
        self.sentences = sentences

    def encode(self, result: Estimate | CheckResult) -> list[Any]:
        return [self._index(value) if name == "template" else value for name, value in vars(result).items()]

    def encode_measures(self, measures: AgreementMeasures) -> list[list[Any]]:
        return [self.encode(measures.pairwise), self.encode(measures.alpha)]

    def decode(self, kind: type[Any], encoded: list[Any]) -> Any:
        values = dict(zip(kind.__dataclass_fields__, encoded, strict=True))
        return kind(**values | {"template": gettext_lazy(self.sentences[values["template"]])})

    def decode_measures(self, encoded: list[list[Any]]) -> AgreementMeasures:
        pairwise, alpha = encoded
        return AgreementMeasures(self.decode(Estimate, pairwise), self.decode(Estimate, alpha))

    def _index(self, template: str | Promise) -> int:
        with translation.override(None):
            source = str(template)
        if source not in self.sentences:
            self.sentences.append(source)
        return self.sentences.index(source)
