"""Reads for pages and API: statistics, progress, trust, review cases, exports."""
