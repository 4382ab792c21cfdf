"""Processes around Django: environment, embedded PostgreSQL, broker, web worker, supervisor, health."""
