"""Sampling rules: the order in which comparisons without rankings are served.

A rule gives each new comparison a key in [0, 1). Within a priority, lower keys are served first. To add a rule, write
one function here.
"""

import random
from collections.abc import Callable, Sequence

from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.models import Comparison, Project

Rule = Callable[[Project, Sequence[Comparison]], list[float]]
RULES: dict[str, Rule] = {}


def rule(name: str) -> Callable[[Rule], Rule]:
    """Register a rule under the name that `Project.sampling_rule` holds."""

    def register(function: Rule) -> Rule:
        RULES[name] = function
        return function

    return register


def keys(project: Project, comparisons: Sequence[Comparison]) -> list[float]:
    """Return the keys of new comparisons by the project's rule. Raises Invalid for an unknown rule."""
    chosen = RULES.get(project.sampling_rule)
    if chosen is None:
        raise Invalid(
            _('There is no sampling rule "%(sampling_rule)s": the rules are %(known)s.')
            % {"sampling_rule": project.sampling_rule, "known": ", ".join(sorted(RULES))}
        )
    return chosen(project, comparisons)


@rule("random")
def at_random(project: Project, comparisons: Sequence[Comparison]) -> list[float]:
    return [random.random() for _ in comparisons]
