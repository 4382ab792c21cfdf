"""Every write of members, annotators and reviewers, one module a noun. Pages and the API call the same functions."""
