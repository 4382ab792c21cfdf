"""OpenAI-compatible endpoints of a project, which write completions: records, addresses, requests."""
