"""Serving: the engine process, and the OpenAI-compatible API in front of it."""
