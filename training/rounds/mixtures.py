"""The sources of a round's mixture in the database: which checkpoints and endpoints write, and what they wrote."""

from django.utils.translation import gettext as _

from feedback.errors import Invalid
from feedback.models import Source
from training.endpoints import records
from training.learner.environments import SINGLE_TURN
from training.models import Round
from training.rounds import named_checkpoints, simulated_user
from training.rounds.sources import NEW, MixedSource, read_sources


def sources_of(round_: Round) -> list[MixedSource]:
    """Return the sources of a round; none if its checkpoint alone writes what is compared."""
    is_mixed = any(job.source for job in round_.jobs)
    return read_sources(round_.settings["round"]["sources"]) if is_mixed else []


def check(round_: Round) -> None:
    """Raise Invalid or Conflict unless each source of the round can write."""
    for source in sources_of(round_):
        if source.endpoint:
            records.key_of(records.named(round_.project, source.endpoint))
            if simulated_user.environment_of(round_.settings) != SINGLE_TURN:
                raise Invalid(
                    _('The endpoint "%(name)s" answers once, and this project has dialogues: leave it out of sources.')
                    % {"name": source.endpoint}
                )
        elif source.key != NEW:
            named_checkpoints.usable(round_.project, source.checkpoint)


def source_row(round_: Round, source: MixedSource, new: Source) -> Source:
    """Return the row of a source. Raise Invalid if it is not there any more."""
    if source.key == NEW:
        return new
    if source.endpoint:
        return records.named(round_.project, source.endpoint).source
    return named_checkpoints.named(round_.project, source.checkpoint).source
