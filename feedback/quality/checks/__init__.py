"""Signs that somebody does not read what they rank. None of them proves anything alone: they say whose work to look at.

`signs_of(project)` reads a project's rankings once and gives everybody's signs; the functions of single signs are pure.

**False alarms.** The sequential tests bet against the hypothesis that somebody works with care, and flag when the stake
has grown a hundredfold. By Ville's inequality (1939) that happens to a careful annotator with a chance of at most 1 in
100 *over all their work and however often one looks* (Ramdas, Grünwald, Vovk and Shafer 2023, «Game-theoretic
statistics and safe anytime-valid inference», §2).

**How soon**, and how often in vain, by simulation (`tests/feedback/test_detectors.py` asserts it, seeds and all):

| who | flagged after, in the median |
|---|---|
| a clicker, measured by people who agree on 73 % of pairs | 59 comparisons; 19 of gold, where 80 % is asked |
| a clicker among four careful people and an adversary | 86 comparisons |
| an adversary, who says the opposite | 21 comparisons; 27 in that crew |
| one who begins to click after 300 comparisons | 174 later |
| one who takes the first shown: always; 80 % of three; 70 % of two | 11; 12; 64 rankings |
| one ten times as fast as others | 10 rankings, the fewest that are judged |

Of 1,500 people just careful enough 8 were flagged as clickers within 400 answers; of 1,000 who agree as others do in
500, none; of 800 without bias 6 by `position_bias` in 300 rankings; of 200 people in careful crews 4 by any test.
"""

from feedback.quality.checks.project import Signs, signs_of
from feedback.quality.checks.results import Answer, Sign, careless, position_bias, speed

__all__ = ["Answer", "Sign", "Signs", "careless", "position_bias", "signs_of", "speed"]
