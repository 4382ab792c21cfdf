"""Rankings, preferences, demonstrations and skips as rows for files."""
