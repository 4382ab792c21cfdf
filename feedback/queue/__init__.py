"""Which comparison an annotator gets next: leases, claims, gold, extra rankings, sampling rules."""
