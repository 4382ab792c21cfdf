"""Leases of comparisons to annotators: claims, gold, extra rankings, sampling rules, blinding."""
