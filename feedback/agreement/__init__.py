"""How far people agree about the same comparisons.

The unit of everything here is a pair of completions of one comparison, as two people who ranked it see it: the first
is better, the second is better, or they tie. Pairs of one comparison are not independent, so every interval treats
the comparison as the thing that was sampled.

`measure(project)` gives all that managers see; `of_annotator(project, user_id)` what one annotator may see of
themselves; `share` an interval for any share counted by comparison.
"""

from feedback.agreement.estimates import Agreed, Estimate, share, wilson
from feedback.agreement.meetings import same_preference
from feedback.agreement.report import Agreement, OfAnnotator, measure, of_annotator

__all__ = [
    "Agreed",
    "Agreement",
    "Estimate",
    "OfAnnotator",
    "measure",
    "of_annotator",
    "same_preference",
    "share",
    "wilson",
]
