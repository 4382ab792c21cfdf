"""REST API at `/api/v1/`. Its views call the same functions as the pages."""
