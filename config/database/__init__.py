"""The setting ENGINE names this package: Django imports `base` from it."""
