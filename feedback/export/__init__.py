"""Rankings, preferences and demonstrations as records for files."""
