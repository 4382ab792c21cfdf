"""Every write of members, annotators and reviewers, one module per noun. Pages and the API call the same functions."""
