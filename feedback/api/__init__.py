"""The API of what people say: `/api/v1/`. What it does is what the pages do, by the same functions."""
