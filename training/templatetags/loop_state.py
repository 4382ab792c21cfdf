"""Template tag of the list of projects, which belongs to feedback and knows no rounds."""

from django import template

from feedback.models import Membership
from training.home.figures import state_line

register = template.Library()


@register.simple_tag
def loop_state(membership: Membership) -> str:
    """Return one line on the state of the project for its managers; "" for others, who must not count the queue."""
    return "" if not membership.is_manager or membership.project.archived_at else state_line(membership.project)
