"""Every write of what people say or decide, one module a noun. Pages and API call the same functions."""
