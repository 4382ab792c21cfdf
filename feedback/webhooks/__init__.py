"""Webhooks: events of a project that are posted to addresses of its managers, signed, at least once, in order.

`emit` writes an event to the outbox in the transaction of the event. The worker's `delivery.deliver_due` posts what is
due and tries again on failure. Signatures and headers follow the Standard Webhooks specification.
"""

from feedback.webhooks.events import EVENTS, emit

__all__ = ["EVENTS", "emit"]
