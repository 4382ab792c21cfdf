"""Samples that figures of a round are means of, for managers."""

from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from feedback.actions import members
from feedback.api.views import api_view
from feedback.export.files import JSON_LINES
from training import reports
from training.rounds import measured_samples


@extend_schema(operation_id="rounds_measured_samples", responses={(200, JSON_LINES): OpenApiTypes.BINARY})
@api_view(["GET"])
def round_measured_samples(request: Request, slug: str, number: int) -> HttpResponseBase:
    """Return the completions that reward, KL and objective of a round are computed from, as JSON Lines, without texts.

    A line has the job, the purpose (evaluation, objective or guards), the model that wrote it (policy or reference),
    the prompt, the index among its completions, and the figures: reward, log_prob under the policy, reference_log_prob,
    and for guards the KL of the checkpoint from its base and its root, estimated on this completion, in nats.
    """
    round_ = reports.round_of(members.manager_of(request.user, slug).project, number)
    return measured_samples.as_response(request._request, round_)
