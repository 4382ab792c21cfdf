"""Reads of the deliveries of webhooks, for their page and the API."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from feedback.models import Webhook, WebhookDelivery
from feedback.reports.data.pages import NEWEST, ROWS_PER_PAGE, Searched, ids_after, page_of, read_cursor


@dataclass(frozen=True)
class Attempt:
    """One attempt of a delivery; without a status there was no answer, and `answer` says why."""

    at: datetime
    status: int | None
    seconds: float
    answer: str

    @property
    def is_success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True)
class DeliveryPage:
    """Deliveries, newest first, and the cursor of the next page; "": this is the last."""

    deliveries: Sequence[WebhookDelivery]
    next: str


def read(webhook: Webhook, *, state: str = "", cursor: str = "", size: int = ROWS_PER_PAGE) -> DeliveryPage:
    """Return a page of the webhook's deliveries. Raises Invalid for a damaged cursor."""
    rows = webhook.deliveries.filter(state=state) if state else webhook.deliveries.all()
    page = page_of(ids_after(Searched(rows), NEWEST, read_cursor(cursor, "newest"), size + 1), "newest", size)
    deliveries = WebhookDelivery.objects.in_bulk(page.ids)
    return DeliveryPage([deliveries[pk] for pk in page.ids], page.next)


def attempts_of(delivery: WebhookDelivery) -> list[Attempt]:
    """Return all attempts, the first one first."""
    return [Attempt(**{**entry, "at": datetime.fromisoformat(entry["at"])}) for entry in delivery.log]


def last_attempt(delivery: WebhookDelivery) -> Attempt | None:
    return next(reversed(attempts_of(delivery)), None)
